"""Check 4: how much of what members are shown stays the same. Shown, and bounded only if the settings ask for it."""

from collections.abc import Sequence
from typing import Final

from nearline.client.question import Question
from nearline.gate.asking import Ask, comes_from_a_vector, whole_answer
from nearline.gate.figures import at_least, shown, unmeasured
from nearline.gate.names import OVERLAP
from schemas.generations import GateFigure
from schemas.ids import Generation

MEMBERS: Final = 200
K: Final = 2000


def overlap(
    ask: Ask, generation: Generation, serving: Generation, member_ids: Sequence[str], least: float | None
) -> GateFigure:
    """The mean share of a member's answers that both generations give. Raises RetrieverError, NotReady."""
    shares: list[float] = []
    longest = 0
    for member_id in member_ids:
        questions = (Question(member_id=member_id, k=K, generation=each) for each in (generation, serving))
        own, others = (whole_answer(ask, question) for question in questions)
        longer = max(len(own.post_ids), len(others.post_ids))
        if longer and comes_from_a_vector(own) and comes_from_a_vector(others):
            shares.append(len(set(own.post_ids) & set(others.post_ids)) / longer)
            longest = max(longest, longer)
    if not shares:
        return unmeasured(OVERLAP, "no sampled member has a vector and an answer in both; send events first", least)
    mean = sum(shares) / len(shares)
    note = f"the mean of {len(shares)} members' best {K}; the least is {min(shares):.3f}"
    if longest < K:
        note += f"; there are fewer than {K} posts, so both give all of them"
    if least is None:
        return shown(OVERLAP, mean, note)
    if mean < least:
        note += "; members would see other posts than now: lower generations.min_overlap if that is wanted"
    return at_least(OVERLAP, mean, least, note)
