"""Measures how good the answers are, in a world where it is known what each post is about."""

from typing import Final

from nearline.demo.world import Truth
from retriever.client import RetrieverClient
from schemas.api import RetrieveRequest

PRECISION_AT: Final = 50


def precision(client: RetrieverClient, truth: Truth, num_members: int) -> tuple[float, float]:
    """Asks for the best candidates of the first `num_members` members. Returns the share of candidates that are about
    their member's interests, and the share that chance would give."""
    members = [member_id for member_id in sorted(truth.interests) if member_id not in truth.deleted_members]
    subjects = list(truth.subject_of.values())
    hits: list[bool] = []
    chance: list[float] = []
    for member_id in members[:num_members]:
        interests = set(truth.interests[member_id])
        answer = client.retrieve(RetrieveRequest(member_id=member_id, k=PRECISION_AT))
        hits += [truth.subject_of.get(post_id) in interests for post_id in answer.post_ids]
        chance.append(sum(subject in interests for subject in subjects) / len(subjects))
    return sum(hits) / max(1, len(hits)), sum(chance) / len(chance)
