"""What stands still, by what was seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearline.monitor.judgement import (
    BROKER_SILENT_S,
    ENDS,
    STILL_S,
    WORKING_S,
    ProcessSeen,
    StageSeen,
    StandsStill,
    judge,
)

AFTER_S = 60.0
RUNNING = ProcessSeen("encode-blue-0", 12, "running", 100.0, idle_s=20.0)
WAITING = StageSeen("encode", (RUNNING,), "a-1", "serving", lag=240, lag_before=10, oldest_age_s=15.4, unmoved_s=14.0)


def verdict(seen: StageSeen, broker_silent_s: float | None = 0.5) -> StandsStill | None:
    verdicts = judge([seen], broker_silent_s, AFTER_S)
    assert len(verdicts) <= 1
    return verdicts[0] if verdicts else None


def sentence(seen: StageSeen, broker_silent_s: float | None = 0.5) -> str:
    found = verdict(seen, broker_silent_s)
    assert found is not None
    return found.sentence


def with_process(**changes: object) -> StageSeen:
    return WAITING._replace(processes=(RUNNING._replace(**changes),))


def test_a_stopped_process_is_named_with_all_that_follows() -> None:
    assert sentence(with_process(state="stopped", for_s=4.0)) == (
        "encode of a-1 has stood still for 4 s: encode-blue-0 (pid 12) is stopped by a signal, and 240 records wait, "
        "10 at first, the oldest for 15 s; new and changed posts and members are not found; it is killed and started "
        "again in about 56 s, unless SIGCONT comes first"
    )


def test_a_stopped_process_is_named_with_nothing_to_read_and_before_the_broker_has_answered() -> None:
    stopped = ProcessSeen("trending", 7, "stopped")
    assert sentence(StageSeen("trending", (stopped,)), None) == (
        "trending has stood still for 0 s: trending (pid 7) is stopped by a signal; the trending lists get old; "
        "it is killed and started again in about 60 s, unless SIGCONT comes first"
    )
    assert "is killed and started again now" in sentence(StageSeen("trending", (stopped._replace(for_s=66.0),)))


def test_one_of_several_that_is_stopped_is_named_alone() -> None:
    other = RUNNING._replace(name="encode-blue-1", state="stopped", for_s=1.0)
    assert ": encode-blue-1 (pid 12) is stopped by" in sentence(WAITING._replace(processes=(RUNNING, other)))


def test_what_does_not_run_is_given_the_time_of_a_restart() -> None:
    gone = RUNNING._replace(pid=None, state="gone", for_s=STILL_S - 1)
    seen = StageSeen("encode", (gone,), "a-1", "serving", lag=0)
    assert verdict(seen) is None
    assert sentence(seen._replace(processes=(gone._replace(for_s=STILL_S),))) == (
        "encode of a-1 has stood still for 6 s: encode-blue-0 is not running; new and changed posts and members are "
        "not found; it is started again and again, at most 5 s apart; the log says why that fails"
    )
    one_runs = (gone._replace(for_s=100.0), RUNNING)
    assert verdict(seen._replace(processes=one_runs)) is None


def test_what_ends_again_and_again_is_named_though_it_runs_now_and_then() -> None:
    serve = ProcessSeen("serve", 12, "running", 0.5, restarts=9, ends=3, unsteady_s=7.0)
    expected = (
        "serve has stood still for 7 s: serve (pid 12) is ending again and again, 3 times in a row; questions are not "
        "answered; it is started again and again, at most 5 s apart; the log says why that fails"
    )
    assert sentence(StageSeen("serve", (serve,))) == expected
    assert verdict(StageSeen("serve", (serve._replace(ends=2),))) is None, "twice may be by chance"
    steady = serve._replace(name="serve-1", ends=0, unsteady_s=0.0)
    assert verdict(StageSeen("serve", (serve, steady))) is None, "the other one answers"
    gone = serve._replace(pid=None, state="gone", for_s=1.0)
    assert "serve is ending again and again" in sentence(StageSeen("serve", (gone,)))


def test_who_commits_nothing_though_records_wait_is_named_in_time() -> None:
    assert verdict(WAITING._replace(unmoved_s=STILL_S - 0.1)) is None
    assert sentence(WAITING).endswith("a process of it that reports no work is killed and started again in about 46 s")
    assert verdict(WAITING._replace(lag=0)) is None
    assert verdict(WAITING._replace(unmoved_s=None)) is None, "it moves, or was looked at once"


def test_a_long_batch_is_no_standstill_but_not_for_ever() -> None:
    at_work = with_process(idle_s=1.0)
    assert verdict(at_work._replace(unmoved_s=WORKING_S - 0.1)) is None
    assert "says that it works, so it is left alone" in sentence(at_work._replace(unmoved_s=WORKING_S))


@pytest.mark.parametrize(
    ("seen", "what_follows"),
    [
        (with_process(idle_s=None), "its process is still starting"),
        (WAITING._replace(processes=()), "no process of it runs on this machine"),
        (WAITING._replace(held_back=True), "the broker ends it in time"),
        (WAITING._replace(unmoved_s=1.4 * AFTER_S), "is killed and started again now"),
        (WAITING._replace(unmoved_s=1.6 * AFTER_S), "reports a little work now and then, so it is not killed"),
    ],
)
def test_what_happens_next_depends_on_why(seen: StageSeen, what_follows: str) -> None:
    assert what_follows in sentence(seen)


def test_what_is_being_built_stands_back_on_purpose() -> None:
    assert verdict(WAITING._replace(state="building")) is None
    stopped = with_process(state="stopped")._replace(state="building")
    assert "it falls behind the serving generation" in sentence(stopped)
    assert "it falls behind the serving generation" in sentence(WAITING._replace(state="kept"))


def test_a_broker_that_is_away_is_named_in_place_of_those_who_wait_for_it() -> None:
    stopped = ProcessSeen("trending", 7, "stopped", 3.0)
    seen = [WAITING, StageSeen("trending", (stopped,))]
    verdicts = judge(seen, 12.0, AFTER_S)
    assert [each.stage for each in verdicts] == ["broker", "trending"]
    assert verdicts[0].sentence == (
        "broker has stood still for 12 s: it does not answer; no event goes on anywhere, and answers become partial; "
        "every stage waits for it, and goes on by itself when it answers"
    )
    (refused,) = judge([WAITING], 12.0, AFTER_S, "Kafka: not authorized")
    assert refused.cause == "it does not answer (Kafka: not authorized)"
    frozen = StageSeen("broker", (ProcessSeen("broker", 3, "stopped", 12.0),))
    assert [each.cause for each in judge([frozen, WAITING], 12.0, AFTER_S)] == ["broker (pid 3) is stopped by a signal"]


_SECONDS = st.floats(0, 200)
_PROCESSES = st.builds(
    ProcessSeen,
    st.just("encode-blue-0"),
    st.just(12),
    st.sampled_from(["running", "stopped", "gone"]),
    _SECONDS,
    st.none() | _SECONDS,
    ends=st.integers(0, 5),
    unsteady_s=_SECONDS,
)
_SEEN = st.builds(
    StageSeen,
    st.sampled_from(["contexts", "trending", "encode", "index", "serve", "monitor", "autopilot", "broker"]),
    st.lists(_PROCESSES, max_size=3),
    st.none() | st.just("a-1"),
    st.sampled_from([None, "building", "serving", "kept"]),
    lag=st.none() | st.integers(0, 1000),
    lag_before=st.none() | st.integers(0, 1000),
    oldest_age_s=st.none() | _SECONDS,
    unmoved_s=st.none() | _SECONDS,
    held_back=st.booleans(),
)


@given(_SEEN, st.none() | _SECONDS)
def test_what_has_a_reason_is_named_and_nothing_else(seen: StageSeen, silent_s: float | None) -> None:
    verdicts = judge([seen], silent_s, AFTER_S)
    states = {process.state for process in seen.processes}
    broker_is_away = silent_s is not None and silent_s >= BROKER_SILENT_S
    stands = bool(seen.lag) and seen.unmoved_s is not None and seen.unmoved_s >= STILL_S
    down = [process.state == "gone" or process.ends >= ENDS for process in seen.processes]
    is_down = bool(down) and all(down)
    named = {each.stage for each in verdicts}
    assert ("broker" in named) >= broker_is_away
    if "stopped" in states:
        assert seen.stage in named
    elif broker_is_away:
        assert named == {"broker"}
    elif not is_down and (not stands or seen.state == "building"):
        assert named == set()
    elif stands and seen.unmoved_s is not None and seen.unmoved_s >= WORKING_S and seen.state != "building":
        assert seen.stage in named
    assert all((each.cause and each.holds_up and each.next and each.for_s >= 0) for each in verdicts)


@given(_SEEN, _SECONDS)
def test_the_longer_nothing_moves_the_surer_it_is(seen: StageSeen, longer_s: float) -> None:
    if seen.unmoved_s is not None and verdict(seen) is not None:
        assert verdict(seen._replace(unmoved_s=seen.unmoved_s + longer_s)) is not None
