"""A service that is measured: its cold process, its retriever, and what comes in for both. Today's (`Now`), or the one
of an earlier commit (`Before`)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.kit import grpc_load, http_load
from benchmarks.kit.before import COMMIT
from benchmarks.kit.children import Child, Ticker, child
from benchmarks.kit.load import Answer, Load
from benchmarks.kit.old_commit import checked_out
from benchmarks.kit.questions import Questions
from retriever.nearline_pb2 import RetrieveRequest
from schemas.ids import Revision

DEADLINE_S = 0.2
"""Of each question: the default."""
RETRIEVE = "/nearline.v1.Retriever/Retrieve"
CALLS_A_CONNECTION = 32
BEFORE_FILES = (
    "benchmarks/kit/before/__init__.py",
    "benchmarks/kit/before/cold_process.py",
    "benchmarks/kit/before/serve_process.py",
    "benchmarks/kit/live_records.py",
)


class Sizes(NamedTuple):
    posts: int
    hot: int
    dimension: int
    members: int
    writes_per_s: float
    newest_us: int


class Service(NamedTuple):
    cold: Child
    serve: Child
    ticker: Ticker

    def change(self, member: int, revision: Revision) -> None:
        """A member's new vector comes in."""
        for each in (self.serve, self.cold):
            each.tell("member", member, revision)

    def writing(self) -> AbstractContextManager[None]:
        """Writes come in during the block."""
        return self.ticker.ticking()


class Before:
    """The service as it was. It answers `at_once` questions at the same time and refuses all others: with as many
    connections none is refused and both cores are busy."""

    def __init__(self, service: Service, load: Load, num_members: int, k: int, at_once: int) -> None:
        bodies = [
            http_load.post("/v1/retrieve", {"member_id": f"author-{number}", "k": k}) for number in range(num_members)
        ]
        self._service = service
        self._load = load
        self._requests = map(bodies.__getitem__, Questions(num_members, service.change))
        self._at_once = at_once

    def run(self, seconds: float) -> list[Answer]:
        with self._service.writing():
            return self._load.run(self._requests, seconds, self._at_once)


class Now:
    """The service of today over gRPC."""

    def __init__(self, service: Service, load: Load, num_members: int, samples: list[bytes]) -> None:
        self.service = service
        self.samples = samples
        """Some of the good answers, not decoded."""
        self._load = load
        self._num_members = num_members
        self._questions = iter(Questions(num_members, service.change))

    def run(self, seconds: float, at_once: int, rate: float | None = None, *, k: int = 2000) -> list[Answer]:
        """Members ask by Zipf's law while writes come in."""
        with self.service.writing():
            return self._load.run(self._requests(self._questions, k, DEADLINE_S), seconds, at_once, rate)

    def ask_each_member(self, k: int, at_once: int) -> list[Answer]:
        """Every member asks once, with much time for each question."""
        with self.service.writing():
            return self._load.run(self._requests(range(self._num_members), k, 30.0), 1e6, at_once)

    def _requests(self, members: Iterable[int], k: int, timeout_s: float) -> Iterator[bytes]:
        timeout_ms = round(timeout_s * 1e3)
        messages = (RetrieveRequest(member_id=f"author-{number}", k=k, timeout_ms=timeout_ms) for number in members)
        return grpc_load.requests(RETRIEVE, (message.SerializeToString() for message in messages), timeout_s)


@contextmanager
def before(sizes: Sizes, folder: Path, k: int, at_once: int) -> Iterator[Before]:
    with ExitStack() as stack:
        code = stack.enter_context(checked_out(COMMIT, BEFORE_FILES))
        service, url = stack.enter_context(_running("benchmarks.kit.before", sizes, folder, code))
        yield Before(service, Load(http_load.connecting(url)), sizes.members, k, at_once)


@contextmanager
def now(sizes: Sizes, folder: Path) -> Iterator[Now]:
    samples: list[bytes] = []
    with _running("benchmarks.kit", sizes, folder, None) as (service, addresses):
        host, _, port = addresses.split()[1].rpartition(":")
        load = Load(grpc_load.connecting(host, int(port), CALLS_A_CONNECTION, samples))
        yield Now(service, load, sizes.members, samples)


@contextmanager
def _running(modules: str, sizes: Sizes, folder: Path, code: Path | None) -> Iterator[tuple[Service, str]]:
    """The service, and the line with which its retriever says where it listens."""
    folder.mkdir(exist_ok=True)
    socket = folder / "cold.sock"
    numbers: Sequence[int] = (sizes.posts, sizes.dimension, sizes.members, sizes.newest_us)
    with child(f"{modules}.cold_process", folder / "cold", socket, *numbers, folder=code) as cold:
        print(f"writing {sizes.posts:,} posts into the cold tier", flush=True)
        cold.hear()
        numbers = (sizes.posts, sizes.hot, sizes.dimension, sizes.members, sizes.newest_us)
        with child(f"{modules}.serve_process", socket, *numbers, folder=code) as serve:
            yield Service(cold, serve, Ticker((serve, cold), sizes.writes_per_s)), serve.hear()
