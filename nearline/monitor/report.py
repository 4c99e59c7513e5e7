"""What the monitor says of the pipeline: the answer of its `/readyz`, and how a status asks for it."""

import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Final

import msgspec
from msgspec import Struct

from nearline.errors import NotReady
from nearline.monitor.judgement import StandsStill
from schemas.printable import printable

READY_PATH: Final = "/readyz"
_MAX_BYTES: Final = 1 << 20
_SHOWN_CHARS: Final = 200


class Standstill(Struct, frozen=True):
    """As `StandsStill`. `since` is RFC 3339. `sentence` holds all of it."""

    stage: str
    generation: str | None
    since: str
    for_s: float
    cause: str
    holds_up: str
    next: str
    sentence: str


class Report(Struct, frozen=True):
    """`ready`: the broker answers, and nothing stands still. `look_age_s`: how long ago the broker has answered all
    that was asked; None if it never has. `oldest_age_s`: by group and topic, for how long the oldest record has waited,
    at least; topics in which none waits are left out."""

    ready: bool
    broker_up: bool
    look_age_s: float | None
    standing_still: list[Standstill]
    oldest_age_s: dict[str, dict[str, float]] = {}


def standstill(verdict: StandsStill, since: str) -> Standstill:
    stage, generation, for_s, cause, holds_up, then = verdict
    return Standstill(stage, generation, since, for_s, cause, holds_up, then, verdict.sentence)


def ask_monitor(url: str, timeout_s: float) -> Report:
    """Raises NotReady if it does not answer in time."""
    try:
        body = _body(f"{url}{READY_PATH}", timeout_s)
    except (OSError, HTTPException) as error:
        raise NotReady(f"the monitor does not answer at {url}: {printable(str(error), _SHOWN_CHARS)}") from error
    try:
        return msgspec.json.decode(body, type=Report)
    except msgspec.DecodeError as error:
        raise NotReady(f"what answers at {url} is no monitor: {error}") from error


def _body(url: str, timeout_s: float) -> bytes:
    """Also of an answer that says 503, as that of a monitor for which something stands still."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return bytes(answer.read(_MAX_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            return error.read(_MAX_BYTES)
