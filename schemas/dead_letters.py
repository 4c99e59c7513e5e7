"""A dead letter: the original key and value, with where it came from and why it can never succeed in its headers."""

from typing import Final, NamedTuple

from schemas.ids import Offset, Partition

Headers = list[tuple[str, bytes]]

_PREFIX: Final = "dead-letter-"


class DeadLetterCause(NamedTuple):
    """`stage` is the stage that gave up; `cause` one sentence."""

    stage: str
    topic: str
    partition: Partition
    offset: Offset
    cause: str


def to_headers(cause: DeadLetterCause) -> Headers:
    # A cause may quote what a stranger sent, a lone surrogate too.
    return [(_PREFIX + name, str(value).encode("utf-8", "replace")) for name, value in cause._asdict().items()]


def from_headers(headers: Headers | None) -> DeadLetterCause:
    """Missing and wrong headers read as empty, so that a foreign record in the topic can still be listed."""
    found = {
        name.removeprefix(_PREFIX): value.decode("utf-8", "replace")
        for name, value in headers or []
        if name.startswith(_PREFIX)
    }
    return DeadLetterCause(
        found.get("stage", ""),
        found.get("topic", ""),
        Partition(_number(found.get("partition", ""))),
        Offset(_number(found.get("offset", ""))),
        found.get("cause", ""),
    )


def _number(text: str) -> int:
    """-1 for what is no number of Kafka's."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1


def without_cause(headers: Headers | None) -> Headers:
    """The record's own headers, as it was sent."""
    return [(name, value) for name, value in headers or [] if not name.startswith(_PREFIX)]
