"""What members notice of promotions and rollbacks, while they ask half of what can be answered."""

import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.kit import grpc_load
from benchmarks.kit.load import Answer, Load, percentile_s
from benchmarks.kit.pipeline_load import moment, write_posts
from benchmarks.kit.reindex.instance import SMALL, build_and_open, connections, serving, two_packages
from benchmarks.kit.reindex.mixed import num_mixed, num_switches, read_vectors
from benchmarks.kit.service.setup import CALLS_A_CONNECTION, DEADLINE_S, RETRIEVE
from benchmarks.kit.table import Figure
from nearline.pipeline import Pipeline
from retriever.nearline_pb2 import RetrieveRequest, RetrieveResponse
from schemas.ids import Generation
from streams.generations import acts
from streams.generations.log import change_generations
from streams.settings import KafkaSettings

_K: Final = 200
_AT_ONCE: Final = (4, 8, 16, 32)
"""Questions at the same time. The number with the most answers a second is taken."""
_MANY: Final = 512
"""Questions at the same time, at most, where a rate is given."""
_CALIBRATION_S: Final = 3.0
_LIKES: Final = 5
"""Of each member."""


class MoveSizes(NamedTuple):
    posts: int
    members: int
    moves: int
    """Promotions, and as many rollbacks."""
    pause_s: float
    """Between two of them."""


def moves(folder: Path, sizes: MoveSizes, texts: list[str]) -> list[Figure]:
    """The acts are those of the commands, but made by this process: for a second the start of a command would take one
    of the cores on which the members' questions are answered."""
    package, other = two_packages(folder, SMALL)
    members = [f"member-{number}" for number in range(sizes.members)]
    write_posts(folder / "events.jsonl", texts, range(sizes.posts))
    _add_members(folder / "events.jsonl", members, sizes.posts)
    with serving(folder, package, folder / "events.jsonl", sizes.posts) as pipeline:
        generation = build_and_open(pipeline, other)
        of_both = connections(pipeline)
        before = Generation(pipeline.instance.generation)
        vectors = {each: read_vectors(of_both, each, members) for each in (before, generation)}
        asking = _Asking(pipeline, members)
        rate = asking.best_rate() / 2
        seconds = 2 * sizes.moves * sizes.pause_s
        without = asking.run(seconds, _MANY, rate)
        asking.samples.clear()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(asking.run, seconds + sizes.pause_s, _MANY, rate)
            _move(of_both.kafka, generation, sizes)
            during = asked.result()
    samples = [RetrieveResponse.FromString(sample) for sample in asking.samples]
    if num_switches(samples) < 2 * sizes.moves:
        raise RuntimeError("not every promotion and rollback changed the generation of the answers")
    return move_figures(rate, without, during, num_mixed(samples, vectors), sizes.moves)


def move_figures(
    rate: float, without: Sequence[Answer], during: Sequence[Answer], mixed: int, num_moves: int
) -> list[Figure]:
    p99_without, p99_during = percentile_s(without, 99), percentile_s(during, 99)
    name = f"{num_moves} promotions and rollbacks"
    return [
        Figure("half of what can be answered, questions/s", rate),
        Figure(f"{name}: answers", len(during)),
        Figure(f"{name}: failed answers", len(during) - _num_good(during), 0, "at_most"),
        Figure(f"{name}: answers of mixed generations", mixed, 0, "at_most"),
        Figure(f"{name}: share of answers that say that something is missing", _partial(during)),
        Figure("without: share of answers that say that something is missing", _partial(without)),
        Figure("without: answer p99, ms", p99_without * 1e3),
        Figure(f"{name}: answer p99, ms", p99_during * 1e3),
        Figure(f"{name}: answer p99 / without", p99_during / p99_without, 2.0, "at_most"),
    ]


class _Asking:
    """Members who ask, over gRPC."""

    def __init__(self, pipeline: Pipeline, members: Sequence[str]) -> None:
        self.samples: list[bytes] = []
        """All good answers, in the order in which they came; not decoded."""
        host, _, port = (pipeline.instance.grpc or "").rpartition(":")
        self._load = Load(grpc_load.connecting(host, int(port), CALLS_A_CONNECTION, self.samples, sample_every=1))
        self._members = members
        self._random = random.Random(0)

    def run(self, seconds: float, at_once: int, rate: float | None = None) -> list[Answer]:
        return self._load.run(self._requests(), seconds, at_once, rate)

    def best_rate(self) -> float:
        """Answers/s. Every member has asked before it is measured."""
        self._load.run(_requests(self._members, 30.0), 1e6, _AT_ONCE[0])
        return max(_num_good(self.run(_CALIBRATION_S, at_once)) / _CALIBRATION_S for at_once in _AT_ONCE)

    def _requests(self) -> Iterator[bytes]:
        return _requests((self._random.choice(self._members) for _ in itertools.count()), DEADLINE_S)


def _requests(members: "Sequence[str] | Iterator[str]", timeout_s: float) -> Iterator[bytes]:
    messages = (RetrieveRequest(member_id=each, k=_K, timeout_ms=round(timeout_s * 1e3)) for each in members)
    return grpc_load.requests(RETRIEVE, (message.SerializeToString() for message in messages), timeout_s)


def _move(kafka: KafkaSettings, generation: Generation, sizes: MoveSizes) -> None:
    for _ in range(sizes.moves):
        time.sleep(sizes.pause_s)
        by = acts.acting("benchmark", "it is measured")
        change_generations(kafka, lambda state, by=by: acts.promote(state, generation, by, force=True))
        time.sleep(sizes.pause_s)
        by = acts.acting("benchmark", "it is measured")
        change_generations(kafka, lambda state, by=by: acts.rollback(state, by))


def _add_members(file: Path, members: Sequence[str], num_posts: int) -> None:
    """Each has a history, and so a vector."""
    rng, now = random.Random(0), moment()
    with file.open("a", encoding="utf-8") as out:
        for member_id in members:
            profile = {"type": "member.updated", "member_id": member_id, "headline": member_id, "skills": [], "at": now}
            out.write(json.dumps({**profile, "industry": "shipping", "language": "en"}) + "\n")
            for number in rng.sample(range(num_posts), _LIKES):
                like = {"type": "activity", "member_id": member_id, "post_id": f"load-{number}", "action": "like"}
                out.write(json.dumps({**like, "at": now}) + "\n")


def _num_good(answers: Sequence[Answer]) -> int:
    return sum(answer.status == grpc_load.OK for answer in answers)


def _partial(answers: Sequence[Answer]) -> float:
    return sum(answer.partial for answer in answers) / max(1, len(answers))
