"""The rounds of `nearline chaos`: sends events to a real pipeline, breaks it meanwhile, and has the end judged."""

import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from nearline.chaos.crash_file import crashes_left, write_crash_file
from nearline.chaos.encoded_twice import EncodedTwice
from nearline.chaos.expected_state import expected_state
from nearline.chaos.faults import Adversary
from nearline.chaos.feed import Event, Feed
from nearline.chaos.judge import Judge
from nearline.chaos.operator_acts import Act, Operator
from nearline.chaos.outages import Outages
from nearline.chaos.process import cold_faults_file, crash_file
from nearline.chaos.retrying import RECOVERY_S, retry_while_away
from nearline.chaos.table import KILL, Print, Round, sentence
from nearline.chaos.up import BreakablePipeline
from nearline.errors import NearlineError
from nearline.up.names import COLD, CONTEXTS, ENCODE, SERVE, TRENDING
from nearline.up.runtime import BROKER

STAGES: Final = (ENCODE, CONTEXTS, COLD, SERVE, TRENDING)
_STACKS_S: Final = 2.0
"""The time in which every process has logged the stacks of its threads."""
_FAULTS_A_ROUND: Final = 3
CRASHES: Final = 2
"""How often each stage crashes at a crash point."""
_FEW_EVENTS: Final = 20
"""Enough to give every stage something to do."""
PASSING: Final = {"transaction": (CONTEXTS, ENCODE), "index": (COLD,)}
"""The stages that pass the crash points of a group."""
_ON_STOP: Final = frozenset(("index.committed",))
"""Crash points that are passed only when partitions are given back. At other times a thread of the client commits."""
_ENVIRONMENT: Final = {
    "NEARLINE_LOG_LEVEL": "info",
    "NEARLINE_HOT__WINDOW_S": str(7 * 24 * 3600),
    # Two workers: whenever one of them dies the other takes over its partitions, and later gives them back.
    "NEARLINE_CONTEXTS__WORKERS": "2",
    # The judge knows what the feed has sent, and calls everything else too much.
    "NEARLINE_MONITOR__CANARY_S": "0",
}


class Chaos:
    """One pipeline, its feed and its judge. Made by `chaos_on`."""

    def __init__(self, pipeline: BreakablePipeline, seed: int, outage_s: float, print_line: Print) -> None:
        self._pipeline = pipeline
        self._crash_file = crash_file(pipeline.data_dir)
        self._random = random.Random(seed)
        self._adversary = Adversary(pipeline, seed)
        self._outages = Outages(pipeline, self._adversary, cold_faults_file(pipeline.data_dir), outage_s)
        self._operator = Operator(pipeline, pipeline.data_dir.with_name("models"))
        self.feed = Feed(seed, datetime.now(UTC) - timedelta(hours=1))
        self.judge = Judge(pipeline)
        self.outages = list(self._outages.all)
        self._print = print_line
        self.rounds: list[Round] = []

    def faults(self, number: int, num_events: int) -> None:
        """Makes `number` random faults while about `num_events` events are sent."""
        rounds = -(-number // _FAULTS_A_ROUND)
        for index in range(rounds):
            num_faults = min(_FAULTS_A_ROUND, number - index * _FAULTS_A_ROUND)
            self._round("random faults", num_events // rounds, partial(self._random_faults, num_faults))

    def crash_point(self, name: str, num_events: int) -> None:
        """Every process that passes the crash point exits there, and once more after its restart."""
        stages = PASSING[name.partition(".")[0]]
        write_crash_file(self._crash_file, name, dict.fromkeys(stages, CRASHES))
        self._adversary.terminate_all(stages)

        def make_faults() -> list[str]:
            for _ in range(CRASHES if name in _ON_STOP else 0):
                # A process that has just started has nothing to give back yet.
                self._send(self.feed.take(_FEW_EVENTS))
                self._wait()
                self._adversary.terminate_all(stages)
            return [f"crash at {name}, twice"]

        self._round("crash point, twice", num_events, make_faults)
        if left := crashes_left(self._crash_file):
            raise NearlineError(f"the crash point {name} was not passed often enough: these crashes are left: {left}")
        write_crash_file(self._crash_file, "", {})

    def act(self, act: Act, num_events: int) -> None:
        """An operator is killed at each crash point of the act, and calls the same command again."""
        self._round("operator killed", num_events, partial(self._operator.kill, act))

    def kill(self, stage: str, num_events: int) -> None:
        """Kills one process of the stage at a random moment, and does nothing else until everything is searchable."""
        twice = EncodedTwice(self._pipeline) if stage == ENCODE else None

        def make_faults() -> list[str]:
            time.sleep(self._random.uniform(0.5, 3.0))
            if twice is not None:
                twice.before_kill()
            self._adversary.kill_stage(stage)
            return [f"kill -9 {stage} alone"]

        self._round(KILL if stage != BROKER else "kill -9 of the broker", num_events, make_faults)
        if twice is not None:
            self.rounds[-1] = self.rounds[-1]._replace(encoded_twice=twice.count())

    def freeze_for_good(self, stage: str, num_events: int) -> None:
        """Freezes a process and leaves it frozen. The time until the supervisor sees it does not count as recovery."""

        def make_faults() -> list[str]:
            self._adversary.freeze_for_good(stage)
            return [f"frozen for good: {stage}"]

        self._round("frozen for good", num_events, make_faults)

    def outage(self, name: str, num_events: int) -> None:
        def make_faults() -> list[str]:
            self._outages.all[name]()
            return [name]

        self._round("outage", num_events, make_faults)

    def write_evidence(self, folder: Path) -> None:
        """Writes what `status` says, and has the processes log the stacks of their threads."""
        folder.mkdir()
        (folder / "status.txt").write_text(self._pipeline.attempt("status").stdout)
        (folder / "processes.txt").write_text("\n".join(map(str, self._pipeline.instance.processes)))
        self._adversary.signal(signal.SIGUSR1, self._adversary.running(*STAGES))
        time.sleep(_STACKS_S)

    def _round(self, kind: str, num_events: int, make_faults: Callable[[], list[str]]) -> None:
        events = self.feed.take(num_events)
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(self._send, events)
            faults = make_faults()
            began = time.monotonic()
            try:
                sent.result()
                self._wait()
            except NearlineError:
                self._print(f"not over after: {'; '.join(faults)}")
                raise
        recovery_s = time.monotonic() - began
        verdict = self.judge.judge(expected_state(self.feed.events))
        self.rounds.append(Round(kind, faults, recovery_s, verdict))
        self._print(f"{len(self.feed.events):>6} events  {recovery_s:5.1f} s  {'; '.join(faults)}")
        if not verdict.is_good:
            self._print(f"the end is not what it must be: {sentence(verdict)}")

    def _send(self, events: Sequence[Event]) -> None:
        """On an error all of them are sent again: an event that is repeated changes nothing."""
        retry_while_away(lambda: self._pipeline.ingest(events))

    def _wait(self) -> None:
        retry_while_away(lambda: self._pipeline.wait(RECOVERY_S))

    def _random_faults(self, number: int) -> list[str]:
        return [self._random_fault() for _ in range(number)]

    def _random_fault(self) -> str:
        time.sleep(self._random.uniform(0.0, 2.0))
        return self._adversary.random_fault()


@contextmanager
def chaos_on(
    seed: int,
    print_line: Print,
    *,
    outage_s: float = 60.0,
    stalled_after_s: float = 30.0,
    keep: bool = False,
    parent: Path | None = None,
) -> Iterator[Chaos]:
    """Starts a pipeline on a temporary folder within `parent`, which is removed afterwards. `outage_s`: how long an
    outage lasts. `keep`: after a failure the folder stays."""
    folder = Path(tempfile.mkdtemp(prefix="nearline-chaos-", dir=parent))
    try:
        data_dir = folder / "data"
        environment = {**_ENVIRONMENT, "NEARLINE_STALLED_AFTER_S": str(stalled_after_s)}
        with BreakablePipeline(data_dir, environment) as pipeline:
            chaos = Chaos(pipeline, seed, outage_s, print_line)
            try:
                yield chaos
            except Exception:
                with suppress(NearlineError, OSError):  # the first error matters more
                    chaos.write_evidence(folder / "evidence")
                raise
    except BaseException:
        if keep:
            print_line(f"what is left of it is in {folder}; remove it when you have looked at it")
        else:
            shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
