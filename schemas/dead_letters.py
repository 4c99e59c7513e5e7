"""Dead letters and their marks.

A dead letter is a record that can never succeed, with its original key and value. Its headers say where it came from
and why it cannot succeed. A mark is a later record in the same partition that says what an operator did with the
letter. The key of a mark is the letter's id. Knows no client of Kafka.
"""

from typing import Final, Literal, NamedTuple, get_args

from schemas.ids import Offset, Partition

Headers = list[tuple[str, bytes]]

Fate = Literal["replayed", "dropped"]
"""What an operator did with a letter."""

DeadLetterKind = Literal["bad_record", "not_json", "post_missing", "unencodable", "unknown"]
"""Causes are sentences, and there is no end of them. These are few: a record that is wrong, one that is no JSON, an
action whose post never came, a context that the model package cannot encode, and letters that do not say it."""

_PREFIX: Final = "dead-letter-"
_MARK: Final = _PREFIX + "mark"
_STAGE: Final = _PREFIX + "stage"
_KIND: Final = _PREFIX + "kind"


class DeadLetterId(NamedTuple):
    """Where the letter is in the topic of dead letters, written `partition:offset`."""

    partition: Partition
    offset: Offset

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


class Mark(NamedTuple):
    """`letter` is None if the key is not an id; then nothing is marked."""

    letter: DeadLetterId | None
    fate: Fate


class DeadLetterCause(NamedTuple):
    """Which stage gave up on which record, and why, in one sentence."""

    stage: str
    topic: str
    partition: Partition
    offset: Offset
    cause: str


def to_headers(cause: DeadLetterCause, kind: DeadLetterKind = "bad_record") -> Headers:
    # A cause may quote text from outside, which may contain a lone surrogate.
    headers = [(_PREFIX + name, str(value).encode("utf-8", "replace")) for name, value in cause._asdict().items()]
    return [*headers, (_KIND, kind.encode())]


def read_kind(headers: Headers) -> DeadLetterKind:
    """Of a letter. Whatever its writer calls it, there are only these."""
    named = dict(headers).get(_KIND, b"")
    return next((kind for kind in get_args(DeadLetterKind) if kind.encode() == named), "unknown")


def from_headers(headers: Headers | None) -> DeadLetterCause:
    """A missing or wrong header counts as empty, so that a record that another program wrote can be listed too."""
    fields = {
        name.removeprefix(_PREFIX): value.decode("utf-8", "replace")
        for name, value in headers or []
        if name.startswith(_PREFIX)
    }
    return DeadLetterCause(
        fields.get("stage", ""),
        fields.get("topic", ""),
        Partition(_number(fields.get("partition", ""))),
        Offset(_number(fields.get("offset", ""))),
        fields.get("cause", ""),
    )


def parse_id(text: str) -> DeadLetterId | None:
    """None if the text is not an id."""
    partition, colon, offset = text.partition(":")
    letter_id = DeadLetterId(Partition(_number(partition)), Offset(_number(offset)))
    return letter_id if colon and min(letter_id) >= 0 else None


def mark_headers(fate: Fate) -> Headers:
    return [(_MARK, fate.encode())]


def read_mark(key: bytes | None, headers: Headers) -> Mark | None:
    """None if the record is a letter. A letter also has the header of a mark if the record that died had it; but only
    letters name a stage."""
    by_name = dict(headers)
    if _MARK not in by_name or _STAGE in by_name:
        return None
    fate: Fate = next((fate for fate in get_args(Fate) if fate.encode() == by_name[_MARK]), "dropped")
    return Mark(parse_id((key or b"").decode("utf-8", "replace")), fate)


def _number(text: str) -> int:
    """-1 if the text is not a number that Kafka could have written."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1


def without_cause(headers: Headers | None) -> Headers:
    """The headers that the record had before it died."""
    return [(name, value) for name, value in headers or [] if not name.startswith(_PREFIX)]
