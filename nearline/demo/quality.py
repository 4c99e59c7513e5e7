"""How good the answers are in a world whose truth is known."""

from typing import Final

from nearline.demo.world import Truth
from retriever.client import RetrieverClient
from schemas.api import RetrieveRequest

PRECISION_AT: Final = 50


def precision(client: RetrieverClient, truth: Truth, num_members: int) -> tuple[float, float]:
    """Of the best candidates of some members, the share that is about their interests, and what chance would give."""
    members = [member_id for member_id in sorted(truth.interests) if member_id not in truth.deleted_members][
        :num_members
    ]
    subjects = list(truth.subject_of.values())
    found: list[bool] = []
    chance: list[float] = []
    for member_id in members:
        wanted = set(truth.interests[member_id])
        answer = client.retrieve(RetrieveRequest(member_id=member_id, k=PRECISION_AT))
        found += [truth.subject_of.get(post_id) in wanted for post_id in answer.post_ids]
        chance.append(sum(subject in wanted for subject in subjects) / len(subjects))
    return sum(found) / max(1, len(found)), sum(chance) / len(chance)
