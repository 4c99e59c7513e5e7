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


class Rates(NamedTuple):
    """Answers or searches a second of one round."""

    before: float
    now: float
    flat: float
    now_small_k: float
    flat_small_k: float


def whole(answers: list[Answer], good: int = grpc_load.OK) -> list[Answer]:
    """The good answers in which nothing is missing."""
    return [answer for answer in answers if answer.status == good and not answer.partial]


def best_at_once(now: Now, seconds: float) -> int:
    rates = {at_once: len(whole(now.run(seconds, at_once, k=K))) for at_once in AT_ONCE}
    return max(rates, key=rates.__getitem__)


class Contest(NamedTuple):
    """Those that are compared, all of them running."""

    before: Before
    now: Now
    flat: Child
    at_once: int
    """So many questions at the same time to today's service."""
    seconds: float

    def round(self, answers: list[Answer], cpu_s: list[tuple[float, float]]) -> Rates:
        """Adds today's answers for 2,000 posts to `answers`, and to `cpu_s` what they cost in both processes. The parts
        alternate, so that a slower or faster machine meanwhile affects all of them."""
        before = self.before.run(self.seconds)
        flat = float(self.flat.ask(K, self.seconds / 2))
        serve, cold = self.now.service.serve, self.now.service.cold
        serve_s, cold_s = serve.cpu_s(), cold.cpu_s()
        now = self.now.run(self.seconds, self.at_once, k=K)
        cpu_s.append((serve.cpu_s() - serve_s, cold.cpu_s() - cold_s))
        flat_small_k = float(self.flat.ask(SMALL_K, self.seconds / 2))
        small_k = self.now.run(self.seconds, self.at_once, k=SMALL_K)
        answers += now
        num_whole = len(whole(before, good=200)), len(whole(now)), len(whole(small_k))
        before_rate, now_rate, small_k_rate = (count / self.seconds for count in num_whole)
        return Rates(before_rate, now_rate, flat, small_k_rate, flat_small_k)


@contextmanager
def contest(now: Now, sizes: Sizes, folder: Path, at_once: int, seconds: float) -> Iterator[Contest]:
    with (
        before(sizes, folder / "before", K, _BEFORE_AT_ONCE) as old,
        child("benchmarks.kit.flat_process", sizes.posts, sizes.hot, sizes.dimension) as flat,
    ):
        flat.hear()
        yield Contest(old, now, flat, at_once, seconds)


def measure_rates(these: Contest, rounds: int) -> list[Figure]:
    these.before.run(these.seconds / 2)
    these.now.samples.clear()
    answers: list[Answer] = []
    cpu_s: list[tuple[float, float]] = []
    rates = [these.round(answers, cpu_s) for _ in range(rounds)]
    _check_samples(these.now.samples)
    serve_ms, cold_ms = (sum(column) / len(answers) * 1e3 for column in zip(*cpu_s, strict=True))
    return [
        *_figures(rates, answers, these.at_once),
        Figure("at this rate: CPU of the retriever's process, ms an answer", serve_ms),
        Figure("at this rate: CPU of the cold tier's process, ms an answer", cold_ms),
    ]


def _check_samples(samples: list[bytes]) -> None:
    """Raises RuntimeError if an answer is not what was counted: a whole one with k candidates."""
    for sample in samples:
        answer = RetrieveResponse.FromString(sample)
        if not len(answer.post_ids) == len(answer.scores) == len(answer.tiers):
            raise RuntimeError("an answer has columns of different lengths")
        if len(answer.post_ids) not in {K, SMALL_K} and not answer.partial:
            raise RuntimeError(f"an answer has {len(answer.post_ids)} candidates: {list(answer.reasons)}")


def _figures(rounds: list[Rates], answers: list[Answer], at_once: int) -> list[Figure]:
    old, now, flat, now_small, flat_small = (sum(column) / len(rounds) for column in zip(*rounds, strict=True))
    late = [answer for answer in answers if answer.took_s > DEADLINE_S]
    return [
        Figure("questions at the same time", at_once),
        Figure("the service before: answers/s, k=2000, HTTP", old),
        Figure("answers/s, k=2000, gRPC", now),
        Figure("answers/s / the service before", now / old, 5.0),
        Figure("FAISS flat over the hot posts alone: searches/s, k=2000", flat),
        Figure("answers/s / FAISS flat over the hot posts, k=2000", now / flat, 2.0),
        Figure("FAISS flat over the hot posts alone: searches/s, k=200", flat_small),
        Figure("answers/s, k=200, gRPC", now_small),
        Figure("answers/s / FAISS flat over the hot posts, k=200", now_small / flat_small, 3.0),
        Figure("at this rate: answer p50, ms", percentile_s(answers, 50) * 1e3),
        Figure("at this rate: answer p99, ms", percentile_s(answers, 99) * 1e3),
        Figure("at this rate: share of answers that were not whole", 1 - len(whole(answers)) / len(answers)),
        Figure("at this rate: share of answers after the deadline", len(late) / len(answers)),
    ]
