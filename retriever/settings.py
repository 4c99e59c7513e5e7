"""Settings of the retriever. `nearline/settings/settings.py` reads them; nothing here looks at the environment."""

import os
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from indexer.settings import url_such_as

MAX_IN_FLIGHT: Final = 64
MAX_WORKERS: Final = 64
_MAX_PORT: Final = 65_535


def _can_be_sent(key: SecretStr) -> SecretStr:
    """Refuses an empty key, as an unset variable leaves behind: it would let in everybody who sends an empty header."""
    value = key.get_secret_value()
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError("a key is at least one character, without spaces around it and without line ends")
    return key


ApiKey = Annotated[SecretStr, AfterValidator(_can_be_sent)]
"""A key that fits into a header."""


def _four_for_each_core(settings: dict[str, Any]) -> int:
    """What is asked at the same time is searched together in one pass over the vectors, and eight in a pass take little
    more than twice the time of one. With more of them, each waits longer than the others gain. Workers share the
    cores."""
    cores_of_worker = len(os.sched_getaffinity(0)) / int(settings.get("workers", 1))
    return max(1, min(int(4 * cores_of_worker), MAX_IN_FLIGHT))


class ServeSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host: str = "127.0.0.1"
    """The default is loopback: only this machine can connect."""
    port: int = Field(8080, ge=0, le=_MAX_PORT)
    """Of HTTP. 0 takes a free port."""
    grpc_port: int | None = Field(None, ge=0, le=_MAX_PORT)
    """None: the one after `port`, or a free one if that is 0."""
    workers: int = Field(1, ge=1, le=MAX_WORKERS)
    """Processes that answer questions. Several of them share both ports, and the kernel gives each connection to one of
    them. Each holds a whole hot tier, members and kept answers of its own."""
    worker_port: int | None = Field(None, ge=1, le=_MAX_PORT - MAX_WORKERS)
    """Of several workers the first one alone answers over HTTP at this port too, the second one at the next, and so on:
    for their metrics, and for whoever must ask each of them. None: free ports."""
    api_key: ApiKey | None = None
    api_key_file: Path | None = None
    """A file that holds the key, so that it stands neither in the settings file nor in the environment."""
    certificate_file: Path | None = None
    """PEM, followed by its chain. With it and its key the retriever speaks HTTPS. Both are read at its start."""
    private_key_file: Path | None = None
    in_flight: int = Field(default_factory=_four_for_each_core, ge=1, le=MAX_IN_FLIGHT)
    """Questions that a worker answers at the same time."""
    queue: int = Field(16, ge=0, le=1024)
    """Questions that may wait beside them. They wait for as long as their deadlines allow. Further ones are told at
    once when to try again: in a longer queue each would wait longer, and no more would be answered."""
    members: int = Field(100_000, ge=1, le=2_000_000)
    """Members whose vectors and lists this process keeps; others are asked of the cold tier. 100,000 members of 128
    dimensions take 60 MB, and their lists 400 MB at most. Five interests of each take 260 MB more."""
    gpu_fraction: float | None = Field(None, gt=0, le=1)
    """The part of each GPU's memory that a worker may take, for the hot tier and for the models that encode queries.
    None: all."""
    kept_mb: int = Field(512, ge=0)
    """Room for answers of the cold tier, so that the next equal question needs only the hot tier. 2,000 candidates take
    34 kB, and their ids as much again if few members share them. 0: none are kept."""
    recall_budget: float = Field(0.01, ge=0, lt=1)
    """Seconds in each second that a worker may spend on answering some questions once more, exactly, to measure the
    recall of its answers. 0: none."""
    url: Annotated[str | None, url_such_as("http://retriever:8080")] = None
    """The retriever that the commands ask. None: the one of this data folder."""
    grpc_url: str | None = None
    """Where the retriever at `url` listens for gRPC. None: at the port after that of `url`."""
    ca_file: Path | None = None
    """PEM of the authority that signed the certificate of the retriever at `url`. None: those this machine trusts."""

    @property
    def port_of_grpc(self) -> int:
        if self.grpc_port is not None:
            return self.grpc_port
        # The last port has no next one.
        return 0 if self.port in (0, _MAX_PORT) else self.port + 1

    def own_port(self, worker: int) -> int | None:
        """Where this worker alone answers over HTTP too; 0 is a free port. None where it is the only one."""
        if self.workers == 1:
            return None
        return 0 if self.worker_port is None else self.worker_port + worker

    @property
    def scheme(self) -> str:
        return "http" if self.certificate_file is None else "https"

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        files = {"certificate_file": self.certificate_file, "private_key_file": self.private_key_file}
        alone = [name for name, file in files.items() if file is not None]
        if len(alone) == 1:
            sentence = "give both certificate_file and private_key_file, or neither"
            raise PydanticCustomError("one_of_two", sentence, {"key": alone[0]})
        return self
