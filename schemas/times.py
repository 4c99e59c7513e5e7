"""Converts RFC 3339 times with a zone to microseconds and back, reads durations such as 12h, and reads the clock."""

import re
import time
from datetime import UTC, datetime, timedelta

from schemas.ids import Micros

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(9999, 1, 1, tzinfo=UTC)
"""Later times are refused: the last hours of the year 9999 in some zones would be in the year 10000 in UTC."""
MICROSECOND = timedelta(microseconds=1)
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def now_us() -> Micros:
    """The wall clock."""
    return Micros(time.time_ns() // 1000)


def to_micros(moment: datetime) -> Micros:
    """Exact; a float of seconds would be rounded."""
    return Micros((moment - EPOCH) // MICROSECOND)


def to_rfc3339(micros: Micros) -> str:
    """Such as `2026-01-05T10:00:00Z`; with a fraction only if there is one."""
    text = (EPOCH + timedelta(microseconds=micros)).isoformat()
    return text.removesuffix("+00:00") + "Z"


def from_rfc3339(text: str) -> Micros:
    """Raises ValueError, with one sentence, if the text is not an RFC 3339 time with a zone."""
    return to_micros(moment_of(text))


def moment_of(text: str) -> datetime:
    """With its zone. Raises ValueError like `from_rfc3339`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an RFC 3339 time such as 2026-01-05T10:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone; add Z or an offset such as +01:00")
    return moment


def duration_s(text: str) -> float:
    """Of a number of seconds, minutes, hours or days, such as 12h. Raises ValueError."""
    parts = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if parts is None:
        raise ValueError(f"{text!r} is no duration such as 90s, 15m, 12h or 30d")
    return float(int(parts[1]) * _UNITS_S[parts[2]])
