"""Which stages stand still, since when, what that holds up, and what happens next.

A pure function of what was seen. The monitor and `nearline status` use the same one. Knows neither Kafka nor processes.

A stage stands still when

- a signal has stopped one of its processes, even with nothing to read: what comes in next will wait;
- or none of its processes has run for `STILL_S`, or each ends again and again, `ENDS` times in a row;
- or records wait and it has committed nothing of some topic for `STILL_S`, unless it reports that it is at work. That
  excuses it for `WORKING_S`: a batch of a large model takes long, but so does a cold tier that is gone.

A stage of a generation that is being built is blamed for its processes alone, because it stands back for live records.
While the broker does not answer nobody can move: then only the broker and stopped processes are named.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from nearline.monitor.canaries import CanaryTrouble
from schemas.generations import State

STILL_S: Final = 6.0
"""With a look about each second, what stands still is named within 10 s. Every stage commits about each second while it
has something to do."""
WORKING_S: Final = 30.0
_KILLED_WITHIN: Final = 1.5
"""By then, in times of `stalled_after_s`, the supervisor has killed what reports no work: it looks now and then."""
BROKER_SILENT_S: Final = 6.0
"""One answer that is late on a busy machine is no outage."""
ENDS: Final = 3
"""Once or twice a process may end by chance."""
BROKER: Final = "broker"
CANARY: Final = "canary"
"""In place of a stage: what is wrong is known, and not where."""

ProcessState = Literal["running", "stopped", "gone"]


class ProcessSeen(NamedTuple):
    """`for_s`: for how long it has been in this state, as far as was seen. A process is gone between its end and its
    next start. `idle_s`: since when it has reported no work; None if it never did. `ends`: how often in a row it has
    ended and was started again, without having run for a while; `unsteady_s`: for how long that has gone on."""

    name: str
    pid: int | None
    state: ProcessState
    for_s: float = 0.0
    idle_s: float | None = None
    restarts: int = 0
    """Since the instance was started."""
    ends: int = 0
    unsteady_s: float = 0.0


class StageSeen(NamedTuple):
    """`state` is that of the generation. `lag` is in records, now and when the stage moved last; None if it is unknown.
    `oldest_age_s` is that of the oldest record that waits, or at least how long it has waited. `unmoved_s`: for how
    long it has committed nothing of some topic in which records waited all the time; None if that was not seen.
    `held_back`: none of these records can be read, because a transaction is open."""

    stage: str
    processes: Sequence[ProcessSeen] = ()
    """Those on this machine."""
    generation: str | None = None
    state: State | None = None
    lag: int | None = None
    lag_before: int | None = None
    oldest_age_s: float | None = None
    unmoved_s: float | None = None
    held_back: bool = False


class StandsStill(NamedTuple):
    """`for_s`: for at least so long. The other texts are parts of a sentence."""

    stage: str
    generation: str | None
    for_s: float
    cause: str
    holds_up: str
    next: str

    @property
    def sentence(self) -> str:
        return f"{beginning(self.stage, self.generation, self.for_s)}: {self.cause}; {self.holds_up}; {self.next}"


def beginning(stage: str, generation: str | None, for_s: float) -> str:
    """Of a sentence about what stands still."""
    of = "" if generation is None else f" of {generation}"
    how = "been lost" if stage == CANARY else "stood still"
    return f"{stage}{of} has {how} for {for_s:.0f} s"


_HOLDS_UP: Final = {
    BROKER: "no event goes on anywhere, and answers become partial",
    "contexts": "no event that comes in changes what is found",
    "trending": "the trending lists get old",
    "encode": "new and changed posts and members are not found",
    "index": "changes do not reach the cold tier, and are found only while the hot tier holds them",
    "serve": "questions are not answered",
    "monitor": "lag is measured no more",
    "autopilot": "published models are not built",
}
_BESIDE: Final = "it falls behind the serving generation, and cannot take over"


def judge(
    stages: Sequence[StageSeen], broker_silent_s: float | None, stalled_after_s: float, broker_error: str = ""
) -> list[StandsStill]:
    """In the order of the stages, the broker first. `broker_silent_s`: for how long the broker has not answered all
    that it was asked; None if nobody has asked it again and again. `broker_error` is what it, or its client, said
    instead. `stalled_after_s` is the setting."""
    if broker_silent_s is None or broker_silent_s < BROKER_SILENT_S:
        judged = (_stopped(seen, stalled_after_s) or _gone(seen) or _unmoved(seen, stalled_after_s) for seen in stages)
        return [verdict for verdict in judged if verdict is not None]
    stopped = [verdict for seen in stages if (verdict := _stopped(seen, stalled_after_s)) is not None]
    if any(verdict.stage == BROKER for verdict in stopped):
        return sorted(stopped, key=lambda verdict: verdict.stage != BROKER)
    return [_silent(broker_silent_s, broker_error), *stopped]


def judge_canaries(troubles: Sequence[CanaryTrouble], now_s: float, every_s: float) -> list[StandsStill]:
    """What no lag shows: every stage has read what came in, and members do not see it. By the clock of the troubles."""
    return [_of_canary(trouble, now_s, every_s) for trouble in sorted(troubles)]


def _of_canary(trouble: CanaryTrouble, now_s: float, every_s: float) -> StandsStill:
    if trouble.outcome == "stayed":
        cause = f"the post {trouble.post_id} was deleted, every stage has read that, and it is still found"
        holds_up = "deleted posts may still be shown"
    else:
        cause = f"the post {trouble.post_id} was sent, every stage has read it, and it is not found"
        holds_up = "new and changed posts may not be found"
    then = f"another one is sent every {every_s:g} s until one is seen; nearline dead-letters list says if one died"
    return StandsStill(CANARY, trouble.generation, now_s - trouble.since_s, cause, holds_up, then)


def _silent(silent_s: float, error: str) -> StandsStill:
    cause = f"it does not answer ({error})" if error else "it does not answer"
    goes_on = "every stage waits for it, and goes on by itself when it answers"
    return StandsStill(BROKER, None, silent_s, cause, _HOLDS_UP[BROKER], goes_on)


def _stopped(seen: StageSeen, stalled_after_s: float) -> StandsStill | None:
    stopped = [process for process in seen.processes if process.state == "stopped"]
    if not stopped:
        return None
    for_s = max(process.for_s for process in stopped)
    cause = f"{_names(stopped)} stopped by a signal{_waiting(seen)}"
    then = f"killed and started again {_in(stalled_after_s - for_s)}, unless SIGCONT comes first"
    return _verdict(seen, for_s, cause, f"{_it(stopped)} {then}")


def _gone(seen: StageSeen) -> StandsStill | None:
    if not seen.processes or not all(map(_is_down, seen.processes)):
        return None
    ends = min(process.ends for process in seen.processes)
    for_s = min(max(process.unsteady_s, process.for_s * (process.state == "gone")) for process in seen.processes)
    what = f"ending again and again, {ends} times in a row" if ends >= ENDS else "not running"
    then = "started again and again, at most 5 s apart; the log says why that fails"
    return _verdict(seen, for_s, f"{_names(seen.processes)} {what}{_waiting(seen)}", f"{_it(seen.processes)} {then}")


def _is_down(process: ProcessSeen) -> bool:
    return process.ends >= ENDS or (process.state == "gone" and process.for_s >= STILL_S)


def _unmoved(seen: StageSeen, stalled_after_s: float) -> StandsStill | None:
    for_s = seen.unmoved_s
    if for_s is None or not seen.lag or seen.state == "building":
        return None
    idle = [process.idle_s for process in seen.processes if process.idle_s is not None]
    works = bool(idle) and min(idle) < STILL_S
    if for_s < (WORKING_S if works else STILL_S):
        return None
    cause = f"it has committed nothing{_waiting(seen)}"
    if seen.held_back:
        cause = f"{cause}, behind an open transaction"
        then = "the broker ends it in time; kafka-transactions.sh find-hanging finds one that it does not end"
    elif not seen.processes:
        then = "no process of it runs on this machine; look whether one runs elsewhere (nearline run)"
    elif not idle:
        then = "its process is still starting, or ends again and again; the log says why"
    elif works:
        then = "its process says that it works, so it is left alone; its log says for what it waits"
    elif for_s > _KILLED_WITHIN * stalled_after_s:
        then = "its process reports a little work now and then, so it is not killed; it may lack a processor or a disk"
    else:
        then = f"a process of it that reports no work is killed and started again {_in(stalled_after_s - for_s)}"
    return _verdict(seen, for_s, cause, then)


def _verdict(seen: StageSeen, for_s: float, cause: str, then: str) -> StandsStill:
    holds_up = _HOLDS_UP[seen.stage] if seen.state in (None, "serving") else _BESIDE
    return StandsStill(seen.stage, seen.generation, for_s, cause, holds_up, then)


def _names(processes: Sequence[ProcessSeen]) -> str:
    names = [process.name + (f" (pid {process.pid})" if process.pid is not None else "") for process in processes]
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"


def _it(processes: Sequence[ProcessSeen]) -> str:
    return "it is" if len(processes) == 1 else "they are"


def _waiting(seen: StageSeen) -> str:
    if not seen.lag:
        return ""
    before = "" if seen.lag_before is None or seen.lag_before == seen.lag else f", {seen.lag_before} at first"
    age = "" if seen.oldest_age_s is None else f", the oldest for {seen.oldest_age_s:.0f} s"
    return f", and {seen.lag} {'record waits' if seen.lag == 1 else 'records wait'}{before}{age}"


def _in(seconds: float) -> str:
    return f"in about {seconds:.0f} s" if seconds >= 1 else "now"
