"""One page of dead letters, and how many letters there are of each cause."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from schemas.dead_letters import DeadLetterCause, DeadLetterId
from streams.operate.dead_letter_box import DeadLetter


class CommonCause(NamedTuple):
    """What letters have in common: a sentence without the words that it quotes from one record."""

    stage: str
    topic: str
    sentence: str


class LetterPage(NamedTuple):
    letters: list[DeadLetter]
    num_more: int
    """Letters behind this page."""
    num_by_cause: Counter[CommonCause]
    """Of all letters, not only of this page."""


def read_page(letters: Iterable[DeadLetter], after: DeadLetterId | None, limit: int) -> LetterPage:
    """The first `limit` letters behind `after`, or from the first one on where `after` is None."""
    page: list[DeadLetter] = []
    num_more = 0
    num_by_cause: Counter[CommonCause] = Counter()
    for letter in letters:
        num_by_cause[_common(letter.cause)] += 1
        if after is None or letter.id > after:
            if len(page) < limit:
                page.append(letter)
            else:
                num_more += 1
    return LetterPage(page, num_more, num_by_cause)


def _common(cause: DeadLetterCause) -> CommonCause:
    return CommonCause(cause.stage, cause.topic, re.sub(r"'[^']*'|\(byte \d+\)", "…", cause.cause))
