"""Settings of the tiers. Read by `nearline/settings/settings.py`; nothing here looks at the environment."""

import re
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from indexer.devices import Device


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def url_such_as(example: str) -> AfterValidator:
    """Checks a setting that is an address of HTTP or None."""
    return AfterValidator(partial(_checked_url, example=example))


def _checked_url(url: str | None, example: str) -> str | None:
    """Raises ValueError."""
    if url is None:
        return None
    if not re.match(r"https?://[^/]", url):
        raise ValueError(f"begin it with http:// or https:// and a host, such as {example}")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"it is no URL; write it such as {example}") from None
    try:
        parts.port  # noqa: B018
    except ValueError:
        raise ValueError(f"its port is no number up to 65535; write it such as {example}") from None
    return url


class ColdSettings(_Settings):
    url: Annotated[str | None, url_such_as("https://qdrant:6333")] = None
    """The address of a Qdrant server or cluster, such as https://qdrant:6333. None: the embedded engine is used."""
    grpc_port: int = Field(6334, ge=1, le=65535)
    """The gRPC port of the server in `url`. All calls go to this port, none to the port in `url`."""
    api_key: SecretStr | None = None
    ca_file: Path | None = None
    """PEM file of the certificate authorities that may vouch for the server. None: those of the system."""
    timeout_s: float = Field(30.0, gt=0)
    quantize: bool = True
    """Scan in int8 and score the hits again with the full vectors."""
    tombstones_kept_s: int = Field(24 * 3600, ge=1)
    replication: int = Field(1, ge=1)
    """How many nodes of a Qdrant cluster hold each point. This and the next two settings count when a generation's
    collections are made; later changes have no effect on them."""
    shards: int | None = Field(None, ge=1)
    """Into how many shards a Qdrant cluster cuts each collection. None: one for each node."""
    graph_m: int = Field(0, ge=0, le=512)
    """Edges per point of the graph (HNSW) on a Qdrant server. 0: none; searches look at every point and are exact. With
    a graph they are quicker beyond some ten million points a node, miss some of the best posts, and building it costs
    several times the work."""


class HotSettings(_Settings):
    window_s: float = Field(48 * 3600.0, gt=0, allow_inf_nan=True)
    """The hot tier holds the posts that changed within this time. inf: all posts. Then the cold tier is not asked, as
    long as they fit."""
    capacity: int = Field(200_000, ge=1)
    """How many posts fit, deleted ones included. 200,000 posts of 128 dimensions take 150 MB. When it is full, the post
    whose change is the oldest goes."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N. auto: a GPU if there is one."""
    threads: int = Field(1, ge=1)
    """How many threads one search uses on a CPU; never more than there are cores."""
    stale_after_s: float = Field(10.0, ge=2)
    """If the hot feed has not reached the end of the topic for so long, answers are partial. The end is asked for about
    each second."""
    snapshot_every_s: float | None = Field(300.0, ge=1)
    """The hot tier is written to disk this often, so that a restart takes seconds. Written more often if
    `kafka.erase_within_s` demands it. None: never; the next start reads the topic."""
