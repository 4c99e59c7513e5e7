"""Answers a second: today's service, the service as it was, and FAISS alone, in turns."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.kit import grpc_load
from benchmarks.kit.children import Child, child
from benchmarks.kit.load import Answer, percentile_s
from benchmarks.kit.service.setup import DEADLINE_S, Before, Now, Sizes, before
from benchmarks.kit.table import Figure
from retriever.nearline_pb2 import RetrieveResponse

K: Final = 2000
SMALL_K: Final = 200
AT_ONCE: Final = (4, 8, 16, 32, 64)
"""Questions at the same time. The number with the most answers a second is taken."""
_BEFORE_AT_ONCE: Final = 2
"""As many as the service before answers at the same time on two cores."""


def whole(answers: list[Answer], good: int = grpc_load.OK) -> list[Answer]:
    """The good answers in which nothing is missing."""
    return [answer for answer in answers if answer.status == good and not answer.partial]


def best_at_once(now: Now, seconds: float) -> int:
    rates = {at_once: len(whole(now.run(seconds, at_once, k=K))) for at_once in AT_ONCE}
    return max(rates, key=rates.__getitem__)


class Measured(NamedTuple):
    """Means of the rounds, and all of today's answers."""

    before: float
    """Answers/s of the service before. 0 if it was not asked."""
    now: float
    """Answers/s."""
    flat: float
    """Searches/s."""
    answers: list[Answer]
    serve_cpu_s: float
    """CPU time of the retriever's process for all answers."""
    cold_cpu_s: float


def rate(now: Now, sizes: Sizes, folder: Path, at_once: int, seconds: float, rounds: int) -> list[Figure]:  # noqa: PLR0917
    """At k = 2000, beside the service before and FAISS alone."""
    with before(sizes, folder / "before", K, _BEFORE_AT_ONCE) as old, _flat(sizes) as flat:
        old.run(seconds / 2)
        measured = _in_turns(now, flat, old, K, at_once, seconds, rounds)
    answers, count = measured.answers, len(measured.answers)
    late = [answer for answer in answers if answer.took_s > DEADLINE_S]
    return [
        Figure("questions at the same time", at_once),
        Figure("the service before: answers/s, k=2000, HTTP", measured.before),
        Figure("answers/s, k=2000, gRPC", measured.now),
        Figure("answers/s / the service before", measured.now / measured.before, 5.0),
        Figure("FAISS flat over the hot posts alone: searches/s, k=2000", measured.flat),
        Figure("answers/s / FAISS flat over the hot posts, k=2000", measured.now / measured.flat, 2.0),
        Figure("at this rate: answer p50, ms", percentile_s(answers, 50) * 1e3),
        Figure("at this rate: answer p99, ms", percentile_s(answers, 99) * 1e3),
        Figure("at this rate: share of answers that were not whole", 1 - len(whole(answers)) / count),
        Figure("at this rate: share of answers after the deadline", len(late) / count),
        Figure("at this rate: CPU of the retriever's process, ms an answer", measured.serve_cpu_s / count * 1e3),
        Figure("at this rate: CPU of the cold tier's process, ms an answer", measured.cold_cpu_s / count * 1e3),
    ]


def small_k(now: Now, sizes: Sizes, at_once: int, seconds: float, rounds: int) -> list[Figure]:
    """At k = 200, beside FAISS alone. The last of what is measured, because the cold answers that are made ahead for a
    member are as large as what the member asked for last."""
    with _flat(sizes) as flat:
        measured = _in_turns(now, flat, None, SMALL_K, at_once, seconds, rounds)
    return [
        Figure("FAISS flat over the hot posts alone: searches/s, k=200", measured.flat),
        Figure("answers/s, k=200, gRPC", measured.now),
        Figure("answers/s / FAISS flat over the hot posts, k=200", measured.now / measured.flat, 3.0),
    ]


@contextmanager
def _flat(sizes: Sizes) -> Iterator[Child]:
    with child("benchmarks.kit.flat_process", sizes.posts, sizes.hot, sizes.dimension) as flat:
        flat.hear()
        yield flat


def _in_turns(  # noqa: PLR0917
    now: Now, flat: Child, old: Before | None, k: int, at_once: int, seconds: float, rounds: int
) -> Measured:
    """They alternate, so that a slower or faster machine meanwhile affects all of them."""
    now.samples.clear()
    answers: list[Answer] = []
    num_before = num_whole = 0
    searches = serve_cpu_s = cold_cpu_s = 0.0
    serve, cold = now.service.serve, now.service.cold
    for _ in range(rounds):
        num_before += 0 if old is None else len(whole(old.run(seconds), good=200))
        searches += float(flat.ask(k, seconds / 2))
        serve_s, cold_s = serve.cpu_s(), cold.cpu_s()
        of_round = now.run(seconds, at_once, k=k)
        serve_cpu_s += serve.cpu_s() - serve_s
        cold_cpu_s += cold.cpu_s() - cold_s
        num_whole += len(whole(of_round))
        answers += of_round
    _check_samples(now.samples, k)
    total_s = seconds * rounds
    return Measured(num_before / total_s, num_whole / total_s, searches / rounds, answers, serve_cpu_s, cold_cpu_s)


def _check_samples(samples: list[bytes], k: int) -> None:
    """Raises RuntimeError if an answer is not what was counted: a whole one with k candidates."""
    for sample in samples:
        answer = RetrieveResponse.FromString(sample)
        if not len(answer.post_ids) == len(answer.scores) == len(answer.tiers):
            raise RuntimeError("an answer has columns of different lengths")
        if len(answer.post_ids) != k and not answer.partial:
            raise RuntimeError(f"an answer has {len(answer.post_ids)} candidates: {list(answer.reasons)}")
