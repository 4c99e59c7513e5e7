"""What `deploy/slo.toml` says, checked."""

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from indexer.freshness import BUCKETS_S

FILE: Final = Path(__file__).parent.parent.parent / "deploy" / "slo.toml"

Severity = Literal["page", "ticket"]
"""A page wakes somebody; a ticket can wait for the morning."""
Share = Annotated[float, Field(gt=0, lt=1)]
Window = Annotated[str, Field(pattern=r"^[1-9][0-9]*[mhd]$")]


def _is_measured(within_s: float) -> float:
    if within_s not in BUCKETS_S:
        raise ValueError(f"freshness is measured only against {', '.join(f'{bound:g}' for bound in BUCKETS_S)} s")
    return within_s


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FreshnessObjective(_Settings):
    within_s: Annotated[float, AfterValidator(_is_measured)]
    events: Share
    deletes: Share


class RetrievalObjective(_Settings):
    answered: Share


class Burn(_Settings):
    """`rate`: so many times as quickly as the budget of 30 days would last exactly."""

    rate: float = Field(gt=0)
    long: Window
    short: Window
    severity: Severity


class Limits(_Settings):
    at_least: int = Field(ge=0)
    stands_still_s: float = Field(gt=0)
    waits_s: float = Field(gt=0)
    no_canary_s: float = Field(gt=0)
    erase_within_s: float = Field(gt=0)
    recall: Share
    disk_free: Share
    disk_full_in_s: float = Field(gt=0)
    certificate_ends_in_s: float = Field(gt=0)


class Objectives(_Settings):
    runbooks: str
    freshness: FreshnessObjective
    retrieval: RetrievalObjective
    burn: list[Burn] = Field(min_length=1)
    limits: Limits


def read_objectives(file: Path = FILE) -> Objectives:
    """Raises ValidationError, which names what is wrong; TOMLDecodeError; OSError."""
    return Objectives.model_validate(tomllib.loads(file.read_text()))
