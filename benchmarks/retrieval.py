"""How long the retriever takes to answer with the best 2,000 posts, compared with an exhaustive FAISS search
(IndexFlatIP) over the same posts in one process, one query at a time, each core searching one half of them. All posts
are in the cold tier, which has its own process as in `nearline up`; the newest are also in the hot tier. A question
names a member, whose own and hidden posts are left out. Its cold answer is kept from an earlier question, or nothing is
kept. The same for members with three vectors. Times are medians, without gRPC.

`python -m benchmarks.retrieval [--posts N] [--hot N] [--rounds N] [--json F]`
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.kit.children import child
from benchmarks.kit.flat_search import FlatSearch
from benchmarks.kit.table import Figure, report
from benchmarks.kit.tiers import filled_hot_tier, filled_member_store, new_retriever
from benchmarks.kit.vectors import NUM_AUTHORS, draw
from indexer.cold.socket.client import RemoteColdTier
from indexer.id_table import IdTable
from indexer.tiers import NO_FILTERS, HotQuery
from retriever.answer.question import Question
from retriever.answer.retriever import Retriever
from schemas.embeddings import Vector
from schemas.ids import MemberId, Micros
from schemas.times import now_us

_K: Final = 2_000
_COLD_K: Final = _K + 96
"""The retriever asks the cold tier for so many: a margin beyond k."""
QUERIES: Final = 16
_INTERESTS: Final = 2
"""Beside the member's one vector, so that it is asked for with three."""
_NO_NUMBERS: Final = np.empty(0, np.int32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=1_000_000)
    parser.add_argument("--hot", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    newest, dimension = now_us(), arguments.dimension
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nearline-benchmark-")))
        cold = stack.enter_context(cold_tier(folder, arguments.posts, dimension, newest))
        vectors, ids, members = draw(arguments.posts, dimension), IdTable(), filled_member_store(QUERIES, dimension)
        hot = filled_hot_tier(vectors[-arguments.hot :], arguments.posts - arguments.hot, newest, ids)
        keeping = stack.enter_context(closing(new_retriever(dimension, cold, hot, ids, members)))
        fresh = stack.enter_context(closing(new_retriever(dimension, cold, hot, ids, members, kept_bytes=0)))
        several = filled_member_store(QUERIES, dimension, _INTERESTS)
        keeping_several = stack.enter_context(closing(new_retriever(dimension, cold, hot, ids, several)))
        fresh_several = stack.enter_context(closing(new_retriever(dimension, cold, hot, ids, several, kept_bytes=0)))
        flat = FlatSearch(vectors)
        queries = draw(QUERIES, dimension, seed=1)
        calls: list[Callable[[int], object]] = [
            lambda number: flat.both_cores(queries[number], _K),
            lambda number: flat.one_core(queries[number], _K),
            lambda number: _ask(keeping, number),
            lambda number: _ask(fresh, number),
            lambda number: cold.search(queries[number], _COLD_K),
            lambda number: hot.search([HotQuery(queries[number], _K, NO_FILTERS, _NO_NUMBERS)]),
            lambda number: _ask(keeping_several, number),
            lambda number: _ask(fresh_several, number),
        ]
        times = _measure(calls, arguments.rounds)
        recall = float(np.mean([_recall(keeping, flat, queries, number) for number in range(QUERIES)]))
    return report(_figures(times, recall), arguments.json)


class Times(NamedTuple):
    """Medians in seconds."""

    flat: float
    flat_one_core: float
    kept: float
    fresh: float
    cold: float
    hot: float
    kept_several: float
    fresh_several: float


def _figures(times: Times, recall: float) -> list[Figure]:
    return [
        Figure("one question: exhaustive FAISS search, ms", times.flat * 1e3),
        Figure("one question: the same in one thread, ms", times.flat_one_core * 1e3),
        Figure("one question: whole answer, cold answer kept, ms", times.kept * 1e3),
        Figure("one question: whole answer, nothing kept, ms", times.fresh * 1e3),
        Figure("one question: cold tier alone, over its socket, ms", times.cold * 1e3),
        Figure("one question: hot tier alone, ms", times.hot * 1e3),
        Figure("one question: cold tier alone / exhaustive FAISS search", times.cold / times.flat),
        Figure("one question: cold answer kept / exhaustive FAISS search", times.kept / times.flat, 0.45, "at_most"),
        Figure("one question: nothing kept / exhaustive FAISS search", times.fresh / times.flat, 1.0, "at_most"),
        Figure("a member with three vectors: cold answers kept, ms", times.kept_several * 1e3),
        Figure("a member with three vectors: nothing kept, ms", times.fresh_several * 1e3),
        Figure(
            "a member with three vectors / with one: cold answers kept", times.kept_several / times.kept, 1.3, "at_most"
        ),
        Figure(
            "a member with three vectors / with one: nothing kept", times.fresh_several / times.fresh, 1.3, "at_most"
        ),
        Figure("one question: recall against the exhaustive search", recall, 0.995),
    ]


def _measure(calls: list[Callable[[int], object]], rounds: int) -> Times:
    """The calls alternate, so that a slower or faster machine meanwhile affects all of them."""
    times_of_calls: list[list[float]] = [[] for _ in calls]
    for number in range(rounds * QUERIES):
        for call, times in zip(calls, times_of_calls, strict=True):
            start = time.perf_counter()
            call(number % QUERIES)
            times.append(time.perf_counter() - start)
    # Without the first round, which touches memory for the first time, and in which nothing is kept yet.
    return Times(*(float(np.median(times[QUERIES:] or times)) for times in times_of_calls))


def _ask(retriever: Retriever, number: int) -> list[str]:
    answer = retriever.answer(Question(member_id=MemberId(f"author-{number}"), k=_K, timeout_s=30.0))
    if answer.partial:
        raise RuntimeError(f"the answer is partial: {answer.reasons}")
    return list(answer.post_ids)


def _recall(retriever: Retriever, flat: FlatSearch, queries: Vector, number: int) -> float:
    """The share of the exactly best posts, without the member's own and hidden ones, that the retriever answers."""
    best = flat.both_cores(queries[number], _K + 200)
    exact = [row for row in best if row % NUM_AUTHORS != number and row != number][:_K]
    return len({f"post-{row}" for row in exact} & set(_ask(retriever, number))) / len(exact)


@contextmanager
def cold_tier(folder: Path, count: int, dimension: int, newest: Micros) -> Iterator[RemoteColdTier]:
    socket = folder / "cold.sock"
    with child("benchmarks.kit.cold_process", folder / "cold", socket, count, dimension, QUERIES, newest) as process:
        print(f"writing {count:,} posts into the cold tier", flush=True)
        process.hear()
        with closing(RemoteColdTier(socket, timeout_s=30)) as cold:
            yield cold


if __name__ == "__main__":
    raise SystemExit(main())
