"""Settings of the stages. `nearline/settings/` fills them from files, environment and flags; nothing is read here."""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from indexer.devices import Device

_RUN_CODE: Final = frozenset(
    ("plugin.library.paths", "sasl.kerberos.kinit.cmd", "ssl.engine.location", "ssl.providers")
)
"""Options that load a library or run a shell command. They are refused, because settings may come from elsewhere."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _refuse_code(options: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name in options:
        if name in _RUN_CODE:
            raise ValueError(f"{name} would make the Kafka client load a library or run a command; take it out")
    return options


def _refuse_sections(options: Any) -> Any:
    """In TOML a name with dots and without quotes is a section. Numbers need quotes too."""
    for name, value in options.items() if isinstance(options, dict) else ():
        if isinstance(value, dict):
            raise ValueError(f'put names with dots into quotes, such as "{name}.{next(iter(value), "name")}"')
        if not isinstance(value, str | SecretStr):
            raise ValueError(f"{name} must be text; put its value into quotes")
    return options


def _node_id(name: str | None) -> str | None:
    if name is not None and re.fullmatch(r"[A-Za-z0-9-]{1,100}", name) is None:
        raise ValueError("give 1 to 100 letters, digits and hyphens, such as worker-1")
    return name


def _not_empty(servers: str | None) -> str | None:
    """An empty name, such as an unset variable leaves behind, would be waited for without an end."""
    if servers is not None and not servers.strip():
        raise ValueError("it is empty; name brokers such as kafka-1:9092, or leave it out")
    return servers


class KafkaSettings(_Settings):
    bootstrap_servers: Annotated[str | None, AfterValidator(_not_empty)] = None
    """None: the embedded broker of this data folder."""
    options: Annotated[dict[str, SecretStr], BeforeValidator(_refuse_sections), AfterValidator(_refuse_code)] = {}
    """Options for every Kafka client, such as `security.protocol` and `sasl.password`."""
    node_id: Annotated[str | None, AfterValidator(_node_id)] = None
    """Names this machine in transactional ids, so that a process that is started again ends the open transaction of the
    one before it at once. No two machines may share it. None: made at the first start, and kept in the data folder.
    For a data folder that may be lost while the machine keeps its name, as that of a StatefulSet's pod."""
    partitions: int = Field(4, ge=1, le=1024)
    """Of every topic: the joins need the same number everywhere. To change it later, everything must be rebuilt."""
    replication: int = Field(1, ge=1, le=9)
    inputs_retention_s: int = Field(30 * 24 * 3600, ge=60)
    erase_within_s: int = Field(24 * 3600, ge=10)
    """This long after a post or member was deleted, its text and vectors are gone from all files and caches, and from
    all topics except the inputs and the dead letters. Hops are kept for three quarters of this time, so no stage may be
    down for longer than that."""


class ContextsSettings(_Settings):
    workers: int = Field(1, ge=1, le=64)
    metrics_host: str = "127.0.0.1"
    """The address on which Prometheus can read the metrics, on a free port. A file in the data folder's `metrics` says
    which port."""
    batch_records: int = Field(5000, ge=1, le=100_000)
    """A transaction takes 20 to 80 ms, however many records it has: with 5,000 records 1.8 times as many events/s were
    measured as with 1,000, and a batch still takes less than a second."""
    interval_s: float = Field(0.5, ge=0, le=5)
    """Batches start at least this far apart. A full batch, or the first one after a pause, starts at once."""


class EncodeSettings(_Settings):
    workers: int = Field(1, ge=1, le=64)
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N. auto: a GPU where there is one."""
    threads: int | None = Field(None, ge=1)
    """Threads that run the model on a CPU. None: one less than there are cores, but at least one."""
    budget_tokens: int = Field(8192, ge=64)
    """Tokens in one packed forward pass, at most. Limits the memory."""
    compile: bool = False
    """Fuse the operations between the matrix products, in encode and for queries: on a GPU with torch.compile, and the
    start takes a minute longer; on a CPU with kernels of our own. Both need a C or C++ compiler where it runs. That is
    for laptops and for measurements: an image for a cluster has no compiler, and each process would compile when it
    starts."""
    attention: Literal["flash", "invariant"] = "flash"
    """Of a GPU in bf16. invariant: the attention of a text has the same bits whatever else is in its batch, because
    its keys are never cut into parts that are attended to side by side; with few long texts less of the GPU works then.
    The matrix products may still round differently: cuBLAS chooses kernels by the number of tokens in the batch."""
    gpu_fraction: float | None = Field(None, gt=0, le=1)
    """The part of its GPU's memory that an encode process may take. None: all. The parts of encode, serve and all else
    on a card should add up to less than 1; while a generation is built there are twice as many encode processes."""
    post_vectors: bool = False
    """Write the vectors of posts' texts to the topic `post-vectors`, for other teams. Where the package's prompt of a
    post is more than its text, each post is encoded a second time for this."""
    post_vectors_dimension: int = Field(50, ge=1, le=8192)
    """They are cut to so many numbers, or to as many as the package has."""
    metrics_host: str = "127.0.0.1"
    """As for contexts."""
    batch_records: int = Field(512, ge=1, le=100_000)
    interval_s: float = Field(0.5, ge=0, le=5)
    """As for contexts."""


class IndexSettings(_Settings):
    batch_records: int = Field(1000, ge=1, le=100_000)
    linger_s: float = Field(0.1, ge=0, le=5)
    metrics_host: str = "127.0.0.1"
    """As for contexts."""


class TrendingSettings(_Settings):
    half_life_s: float = Field(3600.0, gt=0)
    interval_s: float = Field(5.0, gt=0)
    """How often each partition's list is written."""
    size: int = Field(500, ge=1, le=10_000)
    """Posts in one partition's list."""
    metrics_host: str = "127.0.0.1"
    """As for contexts."""


class AutopilotSettings(_Settings):
    canary_share: float = Field(0.05, gt=0, lt=1)
    """Of the members: a new generation answers them alone, before it is promoted."""
    canary_s: float = Field(1800.0, ge=0)
    """For so long. It must be enough for many questions: with few, a bad canary is not told from a good one."""
    look_every_s: float = Field(5.0, gt=0, le=3600)
    """How often the autopilot looks whether there is something to do."""
    metrics_host: str = "127.0.0.1"
    """As for contexts."""


class GenerationsSettings(_Settings):
    live_bound_s: float = Field(2.0, gt=0)
    """A generation that is being built stands back while the serving one's oldest record has waited for longer."""
    soak_s: float = Field(60.0, ge=0)
    """The gate watches for so long whether a generation keeps up with live events as the serving one does."""
    settle_s: float = Field(60.0, ge=0)
    """A change that comes in while the gate compares vectors with contexts may be under way for so long. What is not
    there then counts as missing. So long it also waits until the retriever has opened the generation."""
    min_overlap: float | None = Field(None, ge=0, le=1)
    """The gate fails if a member's answers of the new and the serving generation have a smaller share in common, as the
    mean over sampled members. None: the share is only shown."""
    canary_errors: float = Field(0.01, ge=0, le=1)
    """A canary ends by itself if its share of answers that fail or are partial is larger than the serving one's by more
    than this. Chance is left out of account, here and for the next setting."""
    canary_p99_ratio: float = Field(2.0, gt=0)
    """It also ends if its p99 is more than so many times the serving one's."""
    canary_recall: float = Field(0.01, ge=0, le=1)
    """It also ends if the mean recall of its answers, as far as that is measured (`serve.recall_budget`), is lower than
    the serving one's by more than this."""
    canary_window_s: float = Field(600.0, gt=0)
    """The answers of this time are compared."""
