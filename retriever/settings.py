"""Settings of the retriever. Read by `nearline/settings/settings.py`; nothing here looks at the environment."""

import os
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

MAX_IN_FLIGHT: Final = 64


def _cores() -> int:
    """A search is work for the cores, and keeps two of them busy: one in each tier. So as many as there are cores leave
    none idle, and each takes about twice the time that it takes alone. With one more it was more than three times
    (`benchmarks/overload.py`)."""
    return min(len(os.sched_getaffinity(0)), MAX_IN_FLIGHT)


class ServeSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    """Loopback unless told otherwise."""
    port: int = Field(8080, ge=0, le=65535)
    """0: a free one."""
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    """A file that holds the key, where neither a file of settings nor the environment should."""
    certificate_file: Path | None = None
    """PEM, with the chain behind it. Given together with its key: HTTPS. Both are read when the retriever starts."""
    private_key_file: Path | None = None
    in_flight: int = Field(default_factory=_cores, ge=1, le=MAX_IN_FLIGHT)
    """Questions answered at the same time. What comes beyond is told at once to come again later."""
    url: str | None = None
    """A retriever elsewhere, for the commands; None: the one of this data folder."""
    ca_file: Path | None = None
    """PEM. Who signs for the retriever elsewhere; None: whom this machine trusts anyway."""

    @property
    def scheme(self) -> str:
        return "http" if self.certificate_file is None else "https"

    @field_validator("api_key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        """An empty one, such as an unset variable leaves behind, would let in whoever sends an empty header."""
        value = key.get_secret_value() if key is not None else "no key"
        if not value or value != value.strip() or not value.isprintable():
            raise ValueError("a key is at least one character, without spaces around it and without line ends")
        return key

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        files = {"certificate_file": self.certificate_file, "private_key_file": self.private_key_file}
        alone = [name for name, file in files.items() if file is not None]
        if len(alone) == 1:
            sentence = "give both certificate_file and private_key_file, or neither"
            raise PydanticCustomError("one_of_two", sentence, {"key": alone[0]})
        return self
