"""Settings of the tiers. Read by `nearline/settings.py`; nothing here looks at the environment."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ColdSettings(_Settings):
    url: str | None = None
    """A Qdrant server or cluster, such as http://qdrant:6333. None: the embedded engine."""
    api_key: SecretStr | None = None
    timeout_s: float = Field(30.0, gt=0)
    quantize: bool = True
    """int8 for the scan, full vectors for rescoring."""
    tombstones_kept_s: int = Field(24 * 3600, ge=1)


class HotSettings(_Settings):
    window_s: float = Field(48 * 3600.0, gt=0)
    capacity: int = Field(200_000, ge=1)
    """Posts. At 128 dimensions 200,000 are 100 MB."""
    device: str = "auto"
    """auto, cpu or cuda. auto: a GPU where there is one."""
    threads: int = Field(1, ge=1)
    """Of FAISS on a CPU, for one search."""
