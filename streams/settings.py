"""Settings of the stages. Read by `nearline/settings/settings.py`; nothing here looks at the environment."""

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from indexer.devices import Device

_RUN_CODE: Final = frozenset(
    ("plugin.library.paths", "sasl.kerberos.kinit.cmd", "ssl.engine.location", "ssl.providers")
)
"""Settings may come from elsewhere. These load a library, or are a line for a shell."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _without_code(options: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name in options:
        if name in _RUN_CODE:
            raise ValueError(f"{name} makes the Kafka client run code of somebody's choice; take it out")
    return options


class KafkaSettings(_Settings):
    bootstrap_servers: str | None = None
    """None: the embedded broker of this data folder."""
    options: Annotated[dict[str, SecretStr], AfterValidator(_without_code)] = {}
    """Passed through to every Kafka client, such as `security.protocol` and `sasl.password`."""
    partitions: int = Field(4, ge=1, le=1024)
    """Of every topic; the joins need the same number everywhere. Changing it later needs a rebuild."""
    replication: int = Field(1, ge=1, le=9)
    inputs_retention_s: int = Field(30 * 24 * 3600, ge=60)
    erase_within_s: int = Field(24 * 3600, ge=10)
    """What a deleted post or member leaves of its text and vectors is gone from all topics but the inputs and the dead
    letters, and from all files and caches, after this time. Hops are kept for three quarters of it, and no stage may be
    down for longer."""


class ContextsSettings(_Settings):
    workers: int = Field(1, ge=1, le=64)
    batch_records: int = Field(5000, ge=1, le=100_000)
    """A transaction costs some 20 to 80 ms whatever it holds: 5,000 records gave 1.8 times the events/s of 1,000, and
    stay under a second."""
    interval_s: float = Field(0.5, ge=0, le=5)
    """Batches begin at least this far apart, unless they are full. The first after a pause begins at once."""


class EncodeSettings(_Settings):
    workers: int = Field(1, ge=1, le=64)
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N. auto: a GPU where there is one."""
    threads: int | None = Field(None, ge=1)
    """That run the model on a CPU. None: the cores less one for everything else, at least one."""
    budget_tokens: int = Field(8192, ge=64)
    """Tokens in one packed forward pass; bounds memory."""
    compile: bool = False
    """Fuse what is between the matrix products, in encode and for queries. The start takes a minute longer; on a CPU
    it needs a C++ compiler."""
    metrics_host: str = "127.0.0.1"
    """Where Prometheus may ask, on a free port; the data folder's `metrics` says which."""
    batch_records: int = Field(512, ge=1, le=100_000)
    interval_s: float = Field(0.5, ge=0, le=5)
    """As for contexts."""


class IndexSettings(_Settings):
    batch_records: int = Field(1000, ge=1, le=100_000)
    linger_s: float = Field(0.1, ge=0, le=5)
    metrics_host: str = "127.0.0.1"
    """As for encode. The embedded cold tier has metrics."""


class TrendingSettings(_Settings):
    half_life_s: float = Field(3600.0, gt=0)
    interval_s: float = Field(5.0, gt=0)
    """How often each partition's list is written."""
    size: int = Field(500, ge=1, le=10_000)
    """Posts in one partition's list."""
