"""How long answers take at half of the most that the service can do, while the cold tier is frozen, and while ten times
as much is asked as it can do."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks.kit import grpc_load
from benchmarks.kit.load import Answer, percentile_s
from benchmarks.kit.service.rate import whole
from benchmarks.kit.service.setup import DEADLINE_S, Now
from benchmarks.kit.table import Figure

_MANY: Final = 512
"""Questions at the same time, at most, where a rate is given."""
_OVERLOAD: Final = 10
_REFUSED_WITHIN_MS: Final = 50


def at_half(now: Now, rate: float, seconds: float) -> list[Figure]:
    answers = now.run(seconds, _MANY, rate / 2)
    p50_ms, p99_ms = percentile_s(answers, 50) * 1e3, percentile_s(answers, 99) * 1e3
    return [
        Figure("half of the rate: answers/s", len(answers) / seconds),
        Figure("half of the rate: answer p50, ms", p50_ms),
        Figure("half of the rate: p99 / p50", p99_ms / p50_ms, 3.0, "at_most"),
        Figure("half of the rate: answer p99, ms (the deadline)", p99_ms, DEADLINE_S * 1e3, "at_most"),
        Figure("half of the rate: share of answers that were not whole", 1 - len(whole(answers)) / len(answers)),
    ]


def frozen(now: Now, rate: float, seconds: float) -> list[Figure]:
    """At half of the rate. Before, frozen and again: all of it as one run, so that no question starts with a pause."""
    usual_s = seconds / 2
    with ThreadPoolExecutor(1) as pool:
        began = time.perf_counter()
        running = pool.submit(now.run, 2 * usual_s + seconds, _MANY, rate / 2)
        time.sleep(usual_s)
        with now.service.cold.frozen():
            froze_at = time.perf_counter()
            time.sleep(seconds)
            thawed_at = time.perf_counter()
        answers = running.result()
    before, during, after = (
        [answer for answer in answers if first <= answer.at_s - answer.took_s < end]
        for first, end in ((began, froze_at), (froze_at, thawed_at), (thawed_at, float("inf")))
    )
    late = [answer for answer in during if answer.took_s > DEADLINE_S]
    failed = [answer for answer in during if answer.status != grpc_load.OK]
    p99_before, p99_during = percentile_s(before, 99), percentile_s(during, 99)
    return [
        Figure("cold tier frozen: seconds", thawed_at - froze_at),
        Figure("cold tier frozen: questions", len(during)),
        Figure("cold tier frozen: answers late", len(late), 0, "at_most"),
        Figure("cold tier frozen: answers failed", len(failed), 0, "at_most"),
        Figure("cold tier frozen: p99 before, ms", p99_before * 1e3),
        Figure("cold tier frozen: p99 / before", p99_during / p99_before, 1.2, "at_most"),
        Figure("cold tier frozen: share of answers that say that something is missing", _partial(during)),
        Figure("after it: share of answers that say that something is missing", _partial(after)),
    ]


def overload(now: Now, rate: float, seconds: float) -> list[Figure]:
    alone = now.run(seconds, 1)
    answers = now.run(seconds, _MANY, _OVERLOAD * rate)
    accepted = [answer for answer in answers if answer.status == grpc_load.OK]
    refused = [answer for answer in answers if answer.status in grpc_load.COME_AGAIN]
    others = len(answers) - len(accepted) - len(refused)
    p99_alone, p99 = percentile_s(alone, 99), percentile_s(accepted, 99)
    # Without a refusal there is nothing that could have taken too long.
    refused_p99_ms = percentile_s(refused, 99) * 1e3 if refused else 0.0
    return [
        Figure("overload: questions/s sent / the rate", len(answers) / seconds / rate, 0.95 * _OVERLOAD),
        Figure("overload: answers/s / the rate", len(accepted) / seconds / rate),
        Figure("overload: p99 of a question alone, ms", p99_alone * 1e3),
        Figure("overload: p99 of the answers, ms", p99 * 1e3),
        Figure("overload: p99 of the answers / of a question alone", p99 / p99_alone, 3.0, "at_most"),
        Figure("overload: the others are told to come again, p99, ms", refused_p99_ms, _REFUSED_WITHIN_MS, "at_most"),
        Figure("overload: neither answered nor told to come again", others, 0, "at_most"),
    ]


def _partial(answers: list[Answer]) -> float:
    return sum(answer.partial for answer in answers) / max(1, len(answers))
