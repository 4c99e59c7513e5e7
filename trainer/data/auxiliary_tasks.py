"""Auxiliary tasks beside the main one, made from what posts say of themselves. Off unless the settings name them.

- `title_body`: a post's first line and the rest of its text; each is to be found by the other.
- `same_subject`: posts whose first line begins with the same word and a colon: `net` in `net: phy: add a driver`.
- `same_tag`: posts with the same hashtag. A post without a hashtag goes with posts that have all the same words before
  colons: `net: phy`.

Each gives rows like the main task: texts of one owner belong together, and the same loss teaches that. Knows texts and
nothing of batches.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from trainer.settings import TaskName

_PREFIX: Final = re.compile(r"(?:[^\s:]+:\s+)+(?=\S)")
_HASHTAG: Final = re.compile(r"(?<!\w)#(\w+)")


class TaskRow(NamedTuple):
    post: int
    owner: str
    part: str | None = None
    """The part of the post's text that is encoded; None: the whole text."""


def task_rows(name: TaskName, texts: Sequence[str]) -> Iterator[TaskRow]:
    """`texts`: of the posts, in the order of their numbers."""
    return (row for post, text in enumerate(texts) for row in _ROWS[name](post, text))


def _title_body(post: int, text: str) -> Iterator[TaskRow]:
    """The owner is the title. So posts with the same title have the same owner, and the body of one is no negative for
    another."""
    title, _, body = text.strip().partition("\n")
    if body := body.strip():
        yield TaskRow(post, title, title)
        yield TaskRow(post, title, body)


def _same_subject(post: int, text: str) -> Iterator[TaskRow]:
    if words := _words_before_colons(text):
        yield TaskRow(post, words[0])


def _same_tag(post: int, text: str) -> Iterator[TaskRow]:
    tags = {tag.lower() for tag in _HASHTAG.findall(text)}
    if not tags and (words := _words_before_colons(text)):
        tags = {": ".join(words)}
    yield from (TaskRow(post, tag) for tag in sorted(tags))


def _words_before_colons(text: str) -> list[str]:
    """Those that the first line begins with, in lower case."""
    match = _PREFIX.match(text.lstrip().partition("\n")[0])
    return [word.rstrip(":") for word in match[0].lower().split()] if match else []


_ROWS: Final[Mapping[TaskName, Callable[[int, str], Iterator[TaskRow]]]] = {
    "title_body": _title_body,
    "same_subject": _same_subject,
    "same_tag": _same_tag,
}
