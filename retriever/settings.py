"""Settings of the retriever. Read by `nearline/settings.py`; nothing here looks at the environment."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class ServeSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    """Loopback unless told otherwise."""
    port: int = Field(8080, ge=0, le=65535)
    """0: a free one."""
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    """A file that holds the key, where neither a file of settings nor the environment should."""
    url: str | None = None
    """A retriever elsewhere, for the commands; None: the one of this data folder."""
