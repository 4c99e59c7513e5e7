"""What the retriever answers, as frozen columns. Fields that this version does not know are left out."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

Tier = Literal["hot", "cold", "trending", "unknown"]
"""`unknown` is a tier that only a newer retriever has."""


class Reason(NamedTuple):
    """Why an answer is as it is."""

    code: str
    """A word for programs, such as cold_late; docs/serving.md lists them. Newer retrievers may have further ones."""
    detail: str
    """One sentence for people."""

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Answer:
    """Candidates as columns of equal length, best first."""

    generation: str
    partial: bool
    """Something is missing; `reasons` says what."""
    reasons: tuple[Reason, ...]
    post_ids: tuple[str, ...]
    scores: tuple[float, ...] = field(repr=False)
    tiers: tuple[Tier, ...] = field(repr=False)
    timings_ms: Mapping[str, float]
    """How long each step took in the retriever."""
    authors: tuple[str, ...] | None = field(default=None, repr=False)
    """This and the next three are None unless `Question.columns` names them."""
    created_at: tuple[datetime, ...] | None = field(default=None, repr=False)
    revisions: tuple[int, ...] | None = field(default=None, repr=False)
    languages: tuple[str | None, ...] | None = field(default=None, repr=False)
    request_id: str | None = None
    """Finds the request in the retriever's log. None if the retriever did not say it."""

    @property
    def counts(self) -> dict[Tier, int]:
        """How many candidates each tier gave."""
        return {"hot": 0, "cold": 0, "trending": 0, **Counter(self.tiers)}


class PostVector(NamedTuple):
    post_id: str
    revision: int
    vector: tuple[float, ...]
    """Of length one."""


@dataclass(frozen=True, slots=True)
class Vectors:
    generation: str
    posts: tuple[PostVector | None, ...] = field(repr=False)
    """In the order in which the ids were asked for. None for a post that is unknown or deleted."""
    request_id: str | None = None
    partial: bool = False
    """Some may be outdated, or of posts that are deleted; `reasons` says why."""
    reasons: tuple[Reason, ...] = ()


class ProcessStatus(NamedTuple):
    name: str
    pid: int | None
    restarts: int


class StageStatus(NamedTuple):
    stage: str
    group: str
    topic: str
    lag: int | None
    """In records. None if it cannot be read now."""
    oldest_age_s: float | None
    """Age of the oldest record that is not processed yet. None without lag."""
    deleted_unread: Mapping[int, int]
    """For each partition, how many records were deleted before the stage had read them, at most."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the instance. What cannot be read now is None."""

    ready: bool
    problems: tuple[str, ...]
    generation: str | None
    processes: tuple[ProcessStatus, ...]
    stages: tuple[StageStatus, ...]
    cold_posts: int | None
    cold_members: int | None
    hot_posts: int | None
    dead_letters: int | None
    freshness_p50_s: float | None
    freshness_p99_s: float | None
    standing_still: tuple[str, ...] = ()
    """A sentence for each stage that does not go on."""
