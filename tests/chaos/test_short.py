"""A short, seeded part of `make chaos`: a real pipeline loses nothing, whatever dies on the way."""

from collections.abc import Iterator

import pytest

from nearline.chaos.expected_state import expected_state
from nearline.chaos.operator_acts import Act
from nearline.chaos.run import Chaos, chaos_on
from nearline.chaos.table import figures
from tests.kit.folders import parent_of_data

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

SEED = 5
STALLED_AFTER_S = 12.0
ACTS = (
    Act("build", "second", {"generations.topics-made": 2}),
    Act("promote", "second", {"generations.records-sent": 2}),
    Act("rollback", "second", {"generations.begun": 1, "generations.committed": 1}),
    Act("retire", "second", {"generations.files-removed": 2}),
)
"""At one place each. `make chaos` kills the operator at every one."""


@pytest.fixture(scope="module")
def chaos() -> Iterator[Chaos]:
    with chaos_on(SEED, print, stalled_after_s=STALLED_AFTER_S, parent=parent_of_data()) as chaos:
        chaos.crash_point("transaction.outputs-sent", 60)
        chaos.kill("encode", 400)
        chaos.faults(3, 200)
        for act in ACTS:
            chaos.act(act, 30)
        # Fails when nobody sees it.
        chaos.freeze_for_good("encode", 60)
        yield chaos


def test_nothing_is_lost_whatever_dies(chaos: Chaos) -> None:
    rows = figures(chaos.rounds)
    assert rows[0] == {"figure": "faults", "value": 14, "bound": None, "holds": True}
    assert {row["figure"] for row in rows} >= {"posts other vector", "members lost", "members other vector"}
    # How long it took says more of this machine than of the pipeline.
    assert [row["figure"] for row in rows if not row["holds"] and "seconds" not in row["figure"]] == []


def test_the_judge_sees_what_is_wrong(chaos: Chaos) -> None:
    """Ends that the pipeline has not reached, and vectors that are another's: so the other test can fail."""
    judge, end = chaos.judge, expected_state(chaos.feed.events)
    held = judge.look()
    assert judge.compare(end, held).is_good
    post_id, event = next(iter(end.live.items()))
    never = {**event, "post_id": "never-sent"}
    assert judge.compare(end._replace(live={**end.live, "never-sent": never}), held).posts.lost == {"never-sent"}
    dead = end._replace(live={}, deleted={post_id})
    assert judge.compare(dead, held).posts.resurrected == {post_id}
    other = {**end.live, post_id: {**event, "text": "another text"}}
    assert judge.compare(end._replace(live=other), held).posts.older == {post_id}
    member_id, member = next((key, member) for key, member in end.members.items() if member.profile and member.history)
    hides = {**end.members, member_id: member._replace(hidden={"never-hidden"})}
    assert judge.compare(end._replace(members=hides), held).members.older == {member_id}
    another = next(
        stored.vector for key, stored in held.members.items() if key != member_id and stored.vector is not None
    )
    swapped = {**held.members, member_id: held.members[member_id]._replace(vector=another)}
    assert judge.compare(end, held._replace(members=swapped)).members.other_vector == {member_id}
