"""A short, seeded part of `make chaos`: a real pipeline loses nothing, whatever dies on the way."""

from collections.abc import Iterator

import pytest

from nearline.chaos.feed import End, expected_end
from nearline.chaos.run import Chaos, chaos_on
from nearline.chaos.table import SETS, figures

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

SEED = 5
STALLED_AFTER_S = 12.0


@pytest.fixture(scope="module")
def chaos() -> Iterator[Chaos]:
    with chaos_on(SEED, print, stalled_after_s=STALLED_AFTER_S) as chaos:
        chaos.crash_point("transaction.outputs-sent", 60)
        chaos.kill("encode", 400)
        chaos.faults(3, 200)
        # Fails when nobody sees it.
        chaos.freeze_for_good("encode", 60)
        yield chaos


def test_nothing_is_lost_whatever_dies(chaos: Chaos) -> None:
    by_name = {row["figure"]: row for row in figures(chaos.rounds)}
    assert by_name["faults"]["value"] == 6
    assert all(by_name[name]["holds"] for name in SETS)
    assert by_name["dead letters of outages"]["holds"]
    assert by_name["encoded twice by one kill, at most"]["holds"]


def test_the_judge_sees_what_is_wrong(chaos: Chaos) -> None:
    """Ends that the pipeline has not reached: so the other test can fail."""
    end = expected_end(chaos.feed.events)
    post_id, event = next(iter(end.live.items()))
    never = {**event, "post_id": "never-sent"}
    assert chaos.judge.judge(end).is_good
    assert chaos.judge.judge(end._replace(live={**end.live, "never-sent": never})).lost == {"never-sent"}
    assert chaos.judge.judge(End({}, {post_id})).resurrected == {post_id}
    other = {**end.live, post_id: {**event, "text": "another text"}}
    assert chaos.judge.judge(end._replace(live=other)).older == {post_id}
