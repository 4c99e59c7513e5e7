"""Judges a round: compares everything that the pipeline holds with what it must hold."""

from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from nearline.ask.connections import Connections
from nearline.chaos.expected_state import ExpectedState
from nearline.chaos.expected_vectors import ExpectedVectors, ReEncodedVectors
from nearline.chaos.findings import Findings, Seen, member_findings, post_findings
from nearline.chaos.pipeline_state import PipelineState, read_pipeline_state
from nearline.chaos.retrying import retry_while_away
from nearline.pipeline import Pipeline
from nearline.settings.loading import instance_settings

_MORE_HANDLES: Final = 100
"""Connections come and go, and segments and shards are added. A leak with every fault would be more than this."""


class Verdict(NamedTuple):
    posts: Findings
    members: Findings
    dead_letters: int
    handles: set[str]
    """Processes that hold many more open files than in the first round."""

    @property
    def is_good(self) -> bool:
        return not (self.dead_letters or any(self.columns().values()))

    def columns(self) -> dict[str, set[str]]:
        """The sets that must be empty, by their names in the table."""
        kinds = {"posts": self.posts, "members": self.members}
        named = {
            f"{kind} {name.replace('_', ' ')}": ids
            for kind, findings in kinds.items()
            for name, ids in findings._asdict().items()
        }
        return {**named, "handles": self.handles}


class Judge:
    """Remembers the revisions it has seen, and how many files each process held open in the first round."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._settings = instance_settings(None, pipeline.data_dir)
        self._vectors: dict[str, ReEncodedVectors] = {}
        """By the folder of the model package: the adversary also lets other generations serve."""
        self._seen: Seen = {}
        self._handles: dict[str, int] = {}

    def judge(self, expected: ExpectedState) -> Verdict:
        """Call this after `nearline wait`."""
        return self.compare(expected, self.look())

    def look(self) -> PipelineState:
        """Reads the pipeline's state. Waits for parts that are away for a moment."""
        return retry_while_away(
            lambda: read_pipeline_state(Connections(self._settings, lambda: self._pipeline.instance))
        )

    def compare(self, expected: ExpectedState, actual: PipelineState) -> Verdict:
        package = self._pipeline.instance.package
        vectors = self._vectors.setdefault(package, ReEncodedVectors(Path(package)))
        return verdict(expected, actual, vectors, self._seen, self._too_many_handles())

    def _too_many_handles(self) -> set[str]:
        leaking: set[str] = set()
        logs = self._pipeline.data_dir.absolute() / "kafka"
        for process in self._pipeline.instance.processes:
            if process.pid is None:
                continue
            with suppress(OSError):
                handles = num_handles(process.pid, outside=logs)
                if handles > self._handles.setdefault(process.name, handles) + _MORE_HANDLES:
                    leaking.add(process.name)
        return leaking


def num_handles(pid: int, outside: Path) -> int:
    """How many files and connections a process has open, without files in a folder: a broker has the more of those the
    more topics there are, and those of deleted topics for a minute longer. Raises OSError if it has ended."""
    number = 0
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            number += not handle.readlink().is_relative_to(outside)
    return number


def verdict(
    expected: ExpectedState, actual: PipelineState, vectors: ExpectedVectors, seen: Seen, handles: set[str]
) -> Verdict:
    """Updates `seen` with the current revisions."""
    posts, members = post_findings(expected, actual, vectors, seen), member_findings(expected, actual, vectors, seen)
    return Verdict(posts, members, actual.dead_letters, handles)
