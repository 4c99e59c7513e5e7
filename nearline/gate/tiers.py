"""Check 5: the generation's tiers find what a search of all its vectors finds, and are as quick as the serving one's.

Asked is for the posts nearest to vectors of its own members. Posts that change meanwhile are left out on both sides;
whether the tiers hold every post at all is the first check's question. Shapes: Q queries, D dimensions.
"""

import time
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import Final, NamedTuple

import numpy as np

from indexer.tiers import ColdReader
from nearline.client.question import Question
from nearline.gate.asking import Ask, whole_answer
from nearline.gate.figures import at_least, at_most, unmeasured
from nearline.gate.names import SEARCH_P99
from nearline.gate.vectors import changed_ids, nearest_posts
from nearline.gate.versions import TopicVersions
from schemas.canaries import is_reserved
from schemas.embeddings import Vector
from schemas.generations import GateFigure
from schemas.ids import Generation
from streams.settings import KafkaSettings

QUERIES: Final = 100
K: Final = 2000
LEAST_RECALL: Final = 0.995
MOST_P99_RATIO: Final = 1.5
_BEYOND: Final = 64
"""So many more are searched exactly, to know posts whose score equals the last one's but for rounding."""
_SAME_SCORE: Final = 1e-5
_ROUNDS: Final = 3
"""A slow tier is slow in all of them, and a machine that was busy for a moment is not."""
_NUDGE: Final = 0.05
_NO_MEMBER: Final = "no member has a vector in it, so there is nothing to ask with; send events of members first"


def recall_figure(
    kafka: KafkaSettings,
    posts: TopicVersions,
    queries_QD: Vector,
    name: str,
    search: Callable[[Vector], Sequence[str]],
) -> GateFigure:
    """`search` finds the best K posts of a query. Raises what it raises, and StreamsError."""
    if not len(queries_QD):
        return unmeasured(name, _NO_MEMBER, LEAST_RECALL)
    posts.read_on()
    then = posts.snapshot()
    exact = nearest_posts(kafka, posts.topic, then, queries_QD, K + _BEYOND)
    found = [search(query_D) for query_D in queries_QD]
    posts.read_on()
    changed = changed_ids(then, posts.newest)
    # Answers hold no canaries.
    left_out = changed | {post_id for of_one in then.values() for post_id in of_one if is_reserved(post_id)}
    rows = zip(exact.post_ids, exact.scores_QK.tolist(), found, strict=True)
    recalls = [recall for row in rows if (recall := _recall(*row, left_out)) is not None]
    if not recalls:
        return unmeasured(name, "no post stayed the same meanwhile; send events of posts first", LEAST_RECALL)
    mean = sum(recalls) / len(recalls)
    note = f"of {len(recalls)} queries against a search of all vectors; the least is {min(recalls):.3f}"
    if changed:
        note += f"; {len(changed)} posts changed meanwhile and do not count"
    if mean < LEAST_RECALL:
        note += "; posts are missed: look at the settings of the cold tier, or retire it and build it again"
    return at_least(name, mean, LEAST_RECALL, note)


def _recall(
    ids: Sequence[str], scores: Sequence[float], hits: Sequence[str], left_out: Collection[str]
) -> float | None:
    """None where nothing was to be found. A post that is left out takes the place of one that was to be found, if it is
    among the hits."""
    unchanged = [(post_id, score) for post_id, score in zip(ids, scores, strict=True) if post_id not in left_out]
    num_wanted = min(len(unchanged), K - sum(post_id in left_out for post_id in hits))
    if num_wanted <= 0:
        return None
    last_score = unchanged[num_wanted - 1][1] - _SAME_SCORE
    good = {post_id for post_id, score in unchanged if score >= last_score}
    return min(num_wanted, len(good.intersection(hits))) / num_wanted


def cold_search(tier: ColdReader) -> Callable[[Vector], Sequence[str]]:
    return lambda query_D: tier.search(query_D, K).post_ids


def answer_search(ask: Ask, generation: Generation) -> Callable[[Vector], Sequence[str]]:
    return lambda query_D: whole_answer(ask, Question(vector=query_D, k=K, generation=generation)).post_ids


class Asking(NamedTuple):
    """A generation, and vectors of its members."""

    generation: Generation
    queries_QD: Vector


def search_p99(ask: Ask, beside: Asking, serving: Asking, clock: Callable[[], float] = time.perf_counter) -> GateFigure:
    """Both are asked in turns. The figure is the smallest ratio of some rounds. Raises RetrieverError, NotReady."""
    if not len(beside.queries_QD) or not len(serving.queries_QD):
        return unmeasured(SEARCH_P99, _NO_MEMBER, MOST_P99_RATIO)
    rounds: list[tuple[float, float]] = []
    for seed in range(_ROUNDS):
        rounds.append(_p99s(ask, beside, serving, seed, clock))
        if rounds[-1][0] <= MOST_P99_RATIO * rounds[-1][1]:
            break
    own_s, serving_s = min(rounds, key=lambda both: both[0] / both[1])
    note = f"{own_s * 1000:.1f} ms, the serving one's {serving_s * 1000:.1f} ms, of {QUERIES} queries each"
    if own_s > MOST_P99_RATIO * serving_s:
        note += "; members would wait longer: give its place more cores, or take a package with fewer dimensions"
    return at_most(SEARCH_P99, own_s / serving_s, MOST_P99_RATIO, note)


def _p99s(ask: Ask, beside: Asking, serving: Asking, seed: int, clock: Callable[[], float]) -> tuple[float, float]:
    """In seconds. Each query is new, so that no kept answer is given."""
    questions = [
        [Question(vector=query_D, k=K, generation=asking.generation) for query_D in _nudged(asking.queries_QD, seed)]
        for asking in (beside, serving)
    ]
    for question in (questions[0][0], questions[1][0]):
        whole_answer(ask, question)
    times_s: list[list[float]] = [[], []]
    in_turns = chain.from_iterable(zip(*([(at, one) for one in questions[at]] for at in (0, 1)), strict=True))
    for at, question in in_turns:
        began_s = clock()
        whole_answer(ask, question)
        times_s[at].append(clock() - began_s)
    own_s, serving_s = (float(np.quantile(of_one, 0.99)) for of_one in times_s)
    return own_s, serving_s


def _nudged(queries_QD: Vector, seed: int) -> Vector:
    """QUERIES vectors near these, of length one."""
    rng = np.random.default_rng(seed)
    rows = np.arange(QUERIES) % len(queries_QD)
    noise_QD = rng.standard_normal((QUERIES, queries_QD.shape[1])) / np.sqrt(queries_QD.shape[1])
    nudged_QD = queries_QD[rows] + _NUDGE * noise_QD
    unit_QD: Vector = np.asarray(nudged_QD / np.linalg.norm(nudged_QD, axis=1, keepdims=True), np.float32)
    return unit_QD
