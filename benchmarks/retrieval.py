"""The best 2000 of a million posts in the cold tier, the newest 200,000 of them also in the hot tier: from request to
answer in the retriever, without HTTP, against FAISS flat over the same million in one process, batch 1.

`python -m benchmarks.retrieval [--posts N] [--hot N] [--rounds N] [--json F]`. The cold tier has its own process, as in
`nearline up`. Requests are those of members: their vector is read, their own and their hidden posts are left out.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks._cold_owner import SPACING_US
from benchmarks._table import Figure, report
from benchmarks._vectors import draw, posts
from indexer.cold.socket_client import RemoteColdTier
from indexer.hot.tier import MatrixHotTier
from indexer.settings import HotSettings
from retriever.answer.retriever import Retriever
from retriever.answer.warming_encoder import WarmingEncoder
from retriever.feed.trending_lists import TrendingLists
from schemas.api import RetrieveRequest
from schemas.embeddings import Vector
from schemas.ids import Generation, Micros
from schemas.times import now_us

_K: Final = 2_000
_COLD_K: Final = _K + 96
"""What the retriever asks of the cold tier."""
QUERIES: Final = 16
_THREADS: Final = 2
_READY_S: Final = 1_800.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=1_000_000)
    parser.add_argument("--hot", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    newest = now_us()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nearline-benchmark-")))
        cold = stack.enter_context(cold_tier(folder, given.posts, given.dimension, newest))
        vectors = draw(given.posts, given.dimension)
        hot = hot_tier(vectors[-given.hot :], given.posts - given.hot, newest)
        retriever = stack.enter_context(closing(new_retriever(cold, hot)))
        flat = _flat(vectors)
        queries = draw(QUERIES, given.dimension, seed=1)
        calls: list[Callable[[int], object]] = [
            lambda place: _exact(flat, queries[place], _K),
            lambda place: _ask(retriever, place),
            lambda place: cold.search(queries[place], _COLD_K),
            lambda place: hot.search(queries[place], _K),
        ]
        times = _measure(calls, given.rounds)
        recall = float(np.mean([_recall(retriever, flat, queries, place) for place in range(QUERIES)]))
    return report(_figures(times, recall), given.json)


class Times(NamedTuple):
    """Medians in seconds."""

    flat: float
    retrieve: float
    cold: float
    hot: float


def _figures(times: Times, recall: float) -> list[Figure]:
    return [
        Figure("FAISS flat, one process, ms", times.flat * 1e3),
        Figure("retrieve, ms", times.retrieve * 1e3),
        Figure("cold tier over its socket, ms", times.cold * 1e3),
        Figure("hot tier, ms", times.hot * 1e3),
        Figure("cold tier alone / FAISS flat", times.cold / times.flat),
        Figure("retrieve / FAISS flat", times.retrieve / times.flat, 0.8, "at_most"),
        Figure("recall against exact", recall, 0.995),
    ]


def _measure(calls: list[Callable[[int], object]], rounds: int) -> Times:
    """By turns, so that a change of the machine's mood reaches all of them."""
    taken: list[list[float]] = [[] for _ in calls]
    for number in range(rounds * QUERIES):
        for call, times in zip(calls, taken, strict=True):
            start = time.perf_counter()
            call(number % QUERIES)
            times.append(time.perf_counter() - start)
    # The first ones touch memory for the first time.
    return Times(*(float(np.median(times[QUERIES:] or times)) for times in taken))


def _ask(retriever: Retriever, place: int) -> list[str]:
    answer = retriever.retrieve(RetrieveRequest(member_id=f"author-{place}", k=_K))
    if answer.partial:
        raise RuntimeError(f"the answer is partial: {answer.reasons}")
    return answer.post_ids


def _recall(retriever: Retriever, flat: Any, queries: Vector, place: int) -> float:
    """Of the exact best, without the member's own and hidden posts."""
    exact = [row for row in _exact(flat, queries[place], _K + 200) if row % 50_000 != place and row != place][:_K]
    return len({f"post-{row}" for row in exact} & set(_ask(retriever, place))) / len(exact)


def _exact(flat: Any, query_D: Vector, k: int) -> list[int]:
    import faiss

    # The hot tier's scan leaves its own number of threads behind.
    faiss.omp_set_num_threads(_THREADS)
    rows: list[int] = flat.search(query_D.reshape(1, -1), k)[1][0].tolist()
    return rows


@contextmanager
def cold_tier(folder: Path, count: int, dimension: int, newest: Micros) -> Iterator[RemoteColdTier]:
    socket = folder / "cold.sock"
    numbers = map(str, (count, dimension, QUERIES, newest))
    command = [sys.executable, "-m", "benchmarks._cold_owner", str(folder / "cold"), str(socket), *numbers]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        print(f"writing {count:,} posts to the cold tier", flush=True)
        if owner.stdout.readline() != "ready\n":
            raise RuntimeError("the cold process did not start")
        with closing(RemoteColdTier(socket, timeout_s=30)) as cold:
            yield cold
        owner.stdin.close()


def hot_tier(vectors: Vector, first: int, newest: Micros) -> MatrixHotTier:
    window_s = 2 * len(vectors) * SPACING_US / 1e6
    tier = MatrixHotTier(vectors.shape[1], HotSettings(capacity=len(vectors), window_s=window_s, device="cpu"))
    batch = list(posts(vectors, newest_us=newest, spacing_us=SPACING_US, first=first))
    tier.upsert(batch)
    return tier


def _flat(vectors: Vector) -> Any:
    import faiss

    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    return flat


def new_retriever(cold: RemoteColdTier, hot: MatrixHotTier) -> Retriever:
    def no_model() -> Any:
        raise RuntimeError("members need no model")

    return Retriever(
        Generation("benchmark"),
        cold,
        hot,
        encoder=WarmingEncoder(no_model),
        trending=TrendingLists(),
        hot_problem=lambda: None,
    )


if __name__ == "__main__":
    raise SystemExit(main())
