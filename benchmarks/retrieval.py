"""How long the retriever takes to answer with the best 2,000 posts, compared with an exhaustive FAISS search
(IndexFlatIP) over the same posts in one process, one query at a time. All posts are in the cold tier, which has its own
process as in `nearline up`; the newest are also in the hot tier. A request names a member: the retriever reads the
member's vector and leaves out the member's own and hidden posts. Times are medians, without HTTP.

`python -m benchmarks.retrieval [--posts N] [--hot N] [--rounds N] [--json F]`
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

from benchmarks.kit.cold_process import SPACING_US
from benchmarks.kit.table import Figure, report
from benchmarks.kit.vectors import NUM_AUTHORS, draw, posts
from indexer.cold.socket_client import RemoteColdTier
from indexer.hot.tier import MatrixHotTier
from indexer.settings import HotSettings
from retriever.answer.question import Question
from retriever.answer.retriever import Retriever
from retriever.answer.warming_encoder import WarmingEncoder
from retriever.feed.trending_lists import TrendingLists
from schemas.embeddings import Vector
from schemas.ids import Generation, MemberId, Micros
from schemas.times import now_us

_K: Final = 2_000
_TIMEOUT_S: Final = 30.0
"""Long enough for no tier to be left out."""
_COLD_K: Final = _K + 96
"""The retriever asks the cold tier for so many: a margin beyond k."""
QUERIES: Final = 16
_THREADS: Final = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=1_000_000)
    parser.add_argument("--hot", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    newest = now_us()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nearline-benchmark-")))
        cold = stack.enter_context(cold_tier(folder, arguments.posts, arguments.dimension, newest))
        vectors = draw(arguments.posts, arguments.dimension)
        hot = hot_tier(vectors[-arguments.hot :], arguments.posts - arguments.hot, newest)
        retriever = stack.enter_context(closing(new_retriever(cold, hot)))
        flat = _flat(vectors)
        queries = draw(QUERIES, arguments.dimension, seed=1)
        calls: list[Callable[[int], object]] = [
            lambda number: _exact(flat, queries[number], _K),
            lambda number: _ask(retriever, number),
            lambda number: cold.search(queries[number], _COLD_K),
            lambda number: hot.search(queries[number], _K),
        ]
        times = _measure(calls, arguments.rounds)
        recall = float(np.mean([_recall(retriever, flat, queries, number) for number in range(QUERIES)]))
    return report(_figures(times, recall), arguments.json)


class Times(NamedTuple):
    """Medians in seconds."""

    flat: float
    retrieve: float
    cold: float
    hot: float


def _figures(times: Times, recall: float) -> list[Figure]:
    return [
        Figure("exhaustive FAISS search, ms", times.flat * 1e3),
        Figure("retriever, whole answer, ms", times.retrieve * 1e3),
        Figure("cold tier alone, over its socket, ms", times.cold * 1e3),
        Figure("hot tier alone, ms", times.hot * 1e3),
        Figure("cold tier alone / exhaustive FAISS search", times.cold / times.flat),
        Figure("retriever / exhaustive FAISS search", times.retrieve / times.flat, 0.8, "at_most"),
        Figure("recall of the retriever against the exhaustive search", recall, 0.995),
    ]


def _measure(calls: list[Callable[[int], object]], rounds: int) -> Times:
    """The calls alternate, so that a slower or faster machine meanwhile affects all of them."""
    times_of_calls: list[list[float]] = [[] for _ in calls]
    for number in range(rounds * QUERIES):
        for call, times in zip(calls, times_of_calls, strict=True):
            start = time.perf_counter()
            call(number % QUERIES)
            times.append(time.perf_counter() - start)
    # Without the first round, which touches memory for the first time.
    return Times(*(float(np.median(times[QUERIES:] or times)) for times in times_of_calls))


def _ask(retriever: Retriever, number: int) -> list[str]:
    answer = retriever.answer(Question(member_id=MemberId(f"author-{number}"), k=_K, timeout_s=_TIMEOUT_S))
    if answer.partial:
        raise RuntimeError(f"the answer is partial: {answer.reasons}")
    return list(answer.post_ids)


def _recall(retriever: Retriever, flat: Any, queries: Vector, number: int) -> float:
    """The share of the exactly best posts, without the member's own and hidden ones, that the retriever answers."""
    best = _exact(flat, queries[number], _K + 200)
    exact = [row for row in best if row % NUM_AUTHORS != number and row != number][:_K]
    return len({f"post-{row}" for row in exact} & set(_ask(retriever, number))) / len(exact)


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
    command = [sys.executable, "-m", "benchmarks.kit.cold_process", str(folder / "cold"), str(socket), *numbers]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        print(f"writing {count:,} posts into the cold tier", flush=True)
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the cold process did not start")
        with closing(RemoteColdTier(socket, timeout_s=30)) as cold:
            yield cold
        process.stdin.close()


def hot_tier(vectors: Vector, first: int, newest: Micros) -> MatrixHotTier:
    window_s = 2 * len(vectors) * SPACING_US / 1e6
    tier = MatrixHotTier(vectors.shape[1], HotSettings(capacity=len(vectors), window_s=window_s, device="cpu"))
    tier.upsert(list(posts(vectors, newest_us=newest, spacing_us=SPACING_US, first=first)))
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
