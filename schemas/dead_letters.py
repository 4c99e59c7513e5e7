"""A dead letter: the original key and value, with where it came from and why it can never succeed in its headers.

A mark is a record behind a letter, in the same partition, that says what became of it. Its key is the letter's id.
"""

from typing import Final, Literal, NamedTuple, get_args

from schemas.ids import Offset, Partition

Headers = list[tuple[str, bytes]]

Fate = Literal["replayed", "dropped"]
"""What an operator did with a letter."""

_PREFIX: Final = "dead-letter-"
_MARK: Final = _PREFIX + "mark"
_STAGE: Final = _PREFIX + "stage"


class DeadLetterId(NamedTuple):
    """The letter's own place in the topic of dead letters, written `partition:offset`."""

    partition: Partition
    offset: Offset

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


class Mark(NamedTuple):
    """`letter` is None where the key is no id."""

    letter: DeadLetterId | None
    fate: Fate


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


def parse_id(text: str) -> DeadLetterId | None:
    """None for what is no id."""
    partition, colon, offset = text.partition(":")
    found = DeadLetterId(Partition(_number(partition)), Offset(_number(offset)))
    return found if colon and min(found) >= 0 else None


def mark_headers(fate: Fate) -> Headers:
    return [(_MARK, fate.encode())]


def read_mark(key: bytes | None, headers: Headers) -> Mark | None:
    """None for a letter. A record that died may carry the header of a mark; it carries its stage too."""
    found = dict(headers)
    if _MARK not in found or _STAGE in found:
        return None
    fate: Fate = next((fate for fate in get_args(Fate) if fate.encode() == found[_MARK]), "dropped")
    return Mark(parse_id((key or b"").decode("utf-8", "replace")), fate)


def _number(text: str) -> int:
    """-1 for what is no number of Kafka's."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1


def without_cause(headers: Headers | None) -> Headers:
    """The record's own headers, as it was sent."""
    return [(name, value) for name, value in headers or [] if not name.startswith(_PREFIX)]
