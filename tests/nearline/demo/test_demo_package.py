"""The demo's package finds what members care about, without any pipeline."""

from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import nearline.demo
from encoders.encoder import Encoder
from encoders.errors import Unencodable
from encoders.package.model_package import list_files
from nearline.demo.subjects import SUBJECTS
from nearline.demo.world import World, WorldSize, make_world
from schemas.contexts import HistoryEntry, MemberContext, PostContext
from schemas.ids import MemberId, Micros, PostId, Revision

PACKAGE = Path(nearline.demo.__file__).parent / "package"
BEST = 25
POSITIVE = {"click", "like", "comment", "share", "follow"}

Vectors = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(PACKAGE, device="cpu", threads=1)


@pytest.fixture(scope="module")
def world() -> World:
    """Of a seed that training has not seen."""
    return make_world(23, datetime(2026, 1, 8, tzinfo=UTC), WorldSize(posts=800, members=70, activity=3_500))


def test_the_package_is_small_enough_to_be_committed() -> None:
    assert sum((PACKAGE / name).stat().st_size for name in list_files(PACKAGE)) < 10_000_000


def test_members_find_their_subjects_far_better_than_chance(encoder: Encoder, world: World) -> None:
    texts = {event["post_id"]: event["text"] for event in world.events if "text" in event}
    ids = sorted(texts)
    posts_ND = _vectors(encoder.encode_posts([_post(post_id, texts[post_id]) for post_id in ids]))
    members = [member for member in _members(world, texts) if len(member.history) >= 5]
    members_MD = _vectors(encoder.encode_members(members))
    subjects = [world.truth.subject_of[post_id] for post_id in ids]
    shares, chance = [], []
    for member, scores_N in zip(members, members_MD @ posts_ND.T, strict=True):
        interests = set(world.truth.interests[member.member_id])
        scores_N[[ids.index(entry.post_id) for entry in member.history]] = -1
        shares.append(np.mean([subjects[row] in interests for row in np.argsort(-scores_N)[:BEST]]))
        chance.append(np.mean([subject in interests for subject in subjects]))
    assert len(members) > 50
    assert np.mean(shares) > 0.7, f"precision at {BEST} is {np.mean(shares):.2f}, chance is {np.mean(chance):.2f}"
    assert np.mean(shares) > 7 * np.mean(chance)


@pytest.mark.parametrize("subject", sorted(SUBJECTS))
def test_words_of_a_subject_are_nearer_to_each_other_than_to_others(encoder: Encoder, subject: str) -> None:
    own_words = SUBJECTS[subject]
    others = [word for name, words in SUBJECTS.items() if name != subject for word in words if word not in own_words]
    halves = [" ".join(own_words[:15]), " ".join(own_words[15:]), " ".join(others[::40])]
    first_D, second_D, other_D = _vectors(encoder.encode_texts(halves))
    assert first_D @ second_D > first_D @ other_D + 0.2


def test_no_text_is_unknown(encoder: Encoder) -> None:
    texts = ["ARM: dts: rk3399: fix the uart node", "Ein Text auf Deutsch über Fußbälle", "漢字 🚀 \u202e", "x" * 5_000]
    vectors_ND = _vectors(encoder.encode_texts(texts))
    assert np.allclose(np.linalg.norm(vectors_ND, axis=1), 1, atol=1e-5)
    assert np.abs(vectors_ND @ vectors_ND.T - np.eye(len(texts))).max() < 0.95


def _post(post_id: str, text: str) -> PostContext:
    return PostContext(PostId(post_id), Revision(1), Micros(0), text=text)


def _members(world: World, texts: dict[str, str]) -> list[MemberContext]:
    """With history alone."""
    histories: dict[str, list[HistoryEntry]] = defaultdict(list)
    for event in world.events:
        if event["type"] == "activity" and event["action"] in POSITIVE:
            post_id = PostId(event["post_id"])
            entry = HistoryEntry(post_id, event["action"], Micros(0), texts[post_id][:200])
            histories[event["member_id"]].append(entry)
    return [
        MemberContext(MemberId(member_id), Revision(1), Micros(0), history=history[-50:])
        for member_id, history in histories.items()
    ]


def _vectors(outcomes: "list[Vectors | Unencodable | None] | list[Vectors | Unencodable]") -> Vectors:
    assert all(isinstance(outcome, np.ndarray) for outcome in outcomes)
    return np.stack([outcome for outcome in outcomes if isinstance(outcome, np.ndarray)])
