"""Tasks beside the main one, made from what posts say of themselves. Off unless the settings name them.

- `interest`: posts whose first line begins with the same word and a colon: `net` in `net: phy: add a driver`.
- `storyline`: posts that one author wrote within a day, with all the same words before colons: `net: phy`.
- `tag`: posts with the same hashtag. A post without a hashtag goes with posts that have all the same words before
  colons.
- `search`: a post's first line and the rest of its text; each is to be found by the other. The first line is encoded as
  a text query, by the query template if the package has one: so that template is learned.

What two posts have in common by such a task is taken out of what is encoded, words and author: otherwise the task would
teach to read it off. Each task gives rows like the main task: texts of one owner belong together, and the same loss
teaches that. Knows posts and nothing of batches.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from schemas.contexts import PostContext
from schemas.ids import Micros
from trainer.settings import TaskName

_PREFIX: Final = re.compile(r"(?:[^\s:]+:\s+)+(?=\S)")
_HASHTAG: Final = re.compile(r"(?<!\w)#(\w+)")
_STORY_US: Final = 24 * 3600 * 1_000_000
"""A story ends so long after its first post."""


class Part(NamedTuple):
    """What is encoded of a post."""

    text: str
    is_query: bool = False
    """Whether it is what somebody would search with: a title. It is encoded as a text query."""
    without_author: bool = False


class TaskRow(NamedTuple):
    post: int
    owner: str
    part: Part


class _Prefix(NamedTuple):
    """The words before colons with which the first line of a text begins, in lower case."""

    words: list[str]
    without_first: str
    without_any: str

    @property
    def label(self) -> str:
        return ": ".join(self.words)


def task_rows(name: TaskName, posts: Sequence[PostContext]) -> Iterator[TaskRow]:
    """`posts`: in the order of their numbers, and of their creation. Parts without a word are left out."""
    return (row for row in _ROWS[name](posts) if row.part.text)


def _interest(posts: Sequence[PostContext]) -> Iterator[TaskRow]:
    for number, post in enumerate(posts):
        if prefix := _prefix(post.text):
            yield TaskRow(number, prefix.words[0], Part(prefix.without_first))


def _storyline(posts: Sequence[PostContext]) -> Iterator[TaskRow]:
    began: dict[tuple[str, str], Micros] = {}
    for number, post in enumerate(posts):
        if prefix := _prefix(post.text):
            story = post.author_id, prefix.label
            if story not in began or post.created_at_us - began[story] > _STORY_US:
                began[story] = post.created_at_us
            owner = f"{post.author_id} {prefix.label} {began[story]}"
            yield TaskRow(number, owner, Part(prefix.without_any, without_author=True))


def _tag(posts: Sequence[PostContext]) -> Iterator[TaskRow]:
    for number, post in enumerate(posts):
        tags = {tag.lower() for tag in _HASHTAG.findall(post.text)}
        part = _HASHTAG.sub(" ", post.text).strip()
        if not tags and (prefix := _prefix(post.text)):
            tags, part = {prefix.label}, prefix.without_any
        yield from (TaskRow(number, tag, Part(part)) for tag in sorted(tags))


def _search(posts: Sequence[PostContext]) -> Iterator[TaskRow]:
    """The owner is the title. So posts with the same title have the same owner, and the body of one is no negative for
    another."""
    for number, post in enumerate(posts):
        title, _, body = post.text.strip().partition("\n")
        if body := re.sub(rf"(?<!\w){re.escape(title)}(?!\w)", " ", body).strip():
            yield TaskRow(number, title, Part(title, is_query=True))
            yield TaskRow(number, title, Part(body))


def _prefix(text: str) -> _Prefix | None:
    text = text.strip()
    match = _PREFIX.match(text.partition("\n")[0])
    if match is None:
        return None
    words = match[0].lower().split()
    first, *_ = match[0].split()
    return _Prefix([word.rstrip(":") for word in words], text[len(first) :].strip(), text[match.end() :].strip())


_ROWS: Final[Mapping[TaskName, Callable[[Sequence[PostContext]], Iterator[TaskRow]]]] = {
    "interest": _interest,
    "storyline": _storyline,
    "tag": _tag,
    "search": _search,
}
TASKS: Final = tuple(_ROWS)
