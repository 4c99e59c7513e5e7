"""Takes one page of dead letters, and counts the letters of each cause. Asks no broker."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from schemas.dead_letters import DeadLetterCause, DeadLetterId
from streams.operate.dead_letter_box import DeadLetter


class CommonCause(NamedTuple):
    """The cause of several letters: a sentence without what it quotes from a single record."""

    stage: str
    topic: str
    sentence: str


class LetterPage(NamedTuple):
    letters: list[DeadLetter]
    num_more: int
    """Letters after this page."""
    num_by_cause: Counter[CommonCause]
    """Of all letters, not only of this page."""


def read_page(letters: Iterable[DeadLetter], after: DeadLetterId | None, limit: int) -> LetterPage:
    """The first `limit` letters after the letter `after`, or of all letters if that is None."""
    page: list[DeadLetter] = []
    num_more = 0
    num_by_cause: Counter[CommonCause] = Counter()
    for letter in letters:
        num_by_cause[_common_cause(letter.cause)] += 1
        if after is None or letter.id > after:
            if len(page) < limit:
                page.append(letter)
            else:
                num_more += 1
    return LetterPage(page, num_more, num_by_cause)


def _common_cause(cause: DeadLetterCause) -> CommonCause:
    return CommonCause(cause.stage, cause.topic, re.sub(r"'[^']*'|\(byte \d+\)", "…", cause.cause))
