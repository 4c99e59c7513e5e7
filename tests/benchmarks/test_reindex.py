"""What `benchmarks/reindex.py` makes of what it has measured, and what it takes for an answer of mixed generations."""

import os
import pkgutil
import re
from pathlib import Path

import numpy as np
import psutil
import pytest

import benchmarks
from benchmarks import reindex
from benchmarks.kit import grpc_load
from benchmarks.kit.load import Answer
from benchmarks.kit.reindex.instance import seconds_to_ready
from benchmarks.kit.reindex.kills import kill_figures
from benchmarks.kit.reindex.memory import Memory, memory_figures, resident_memory
from benchmarks.kit.reindex.mixed import Vectors, is_mixed, num_mixed, num_switches
from benchmarks.kit.reindex.moves import move_figures
from benchmarks.kit.table import Figure
from nearline.chaos.generation_check import Differences
from retriever.nearline_pb2 import RetrieveResponse
from schemas.ids import Generation

MAKEFILE, README = (Path(__file__).parents[2] / name for name in ("Makefile", "README.md"))
POSTS = ["p0", "p1", "p2", "p3"]
OLD, NEW = Generation("old-1"), Generation("new-2")


def vectors(seed: int) -> Vectors:
    rng = np.random.default_rng(seed)
    posts, members = (rng.standard_normal((number, 8)).astype(np.float32) for number in (len(POSTS), 3))
    return Vectors({post_id: row for row, post_id in enumerate(POSTS)}, posts, members)


GENERATIONS = {OLD: vectors(1), NEW: vectors(2)}


def answer(
    generation: Generation, member: int, post_ids: list[str], scored_by: Generation | None = None
) -> RetrieveResponse:
    """`scored_by`: the generation whose vector of the member is compared, if it is another one."""
    of, by = GENERATIONS.get(generation, GENERATIONS[OLD]), GENERATIONS[scored_by or generation]
    rows = [of.rows.get(post_id, 0) for post_id in post_ids]
    scores = of.posts_PD[rows] @ by.members_MD[member]
    return RetrieveResponse(generation=generation, post_ids=post_ids, scores=scores.tolist())


def test_an_answer_of_one_generation_has_the_scores_of_one_member_in_it() -> None:
    answers = [answer(each, member, ["p2", "p0"]) for each in (OLD, NEW) for member in range(3)]
    assert num_mixed([*answers, RetrieveResponse(generation=OLD)], GENERATIONS) == 0


def test_whatever_comes_from_two_generations_is_seen() -> None:
    one_score = answer(NEW, 1, POSTS)
    one_score.scores[3] = answer(OLD, 1, POSTS).scores[3]
    name_alone = answer(OLD, 0, POSTS)
    name_alone.generation = NEW
    mixed = {
        "the member's vector": answer(NEW, 0, POSTS, scored_by=OLD),
        "one candidate": one_score,
        "the name": name_alone,
        "a post that the generation does not have": RetrieveResponse(generation=NEW, post_ids=["p9"], scores=[0.5]),
        "a generation that nobody made": RetrieveResponse(generation="other-3"),
    }
    assert [what for what, each in mixed.items() if not is_mixed(each, GENERATIONS)] == []


def test_switches_are_counted_between_answers_that_follow_each_other() -> None:
    answers = [RetrieveResponse(generation=each) for each in (OLD, OLD, NEW, OLD, OLD, NEW)]
    assert num_switches(answers) == 3


def test_the_newest_building_counts() -> None:
    acts = [("build", "10:00:00"), ("ready", "10:00:09"), ("retire", "10:01:00"), ("build", "11:00:00")]
    history = [
        {"what": what, "at": f"2026-01-05T{at}Z"} for what, at in [*acts, ("ready", "11:00:20"), ("gate", "12:00:00")]
    ]
    assert seconds_to_ready(history) == 20.0


def test_failed_answers_and_a_long_p99_do_not_hold() -> None:
    quick, slow = (Answer(grpc_load.OK, 0.0, seconds) for seconds in (0.010, 0.021))
    failed = Answer(grpc_load.DEADLINE_EXCEEDED, 0.0, 0.010)
    assert not_held(move_figures(50.0, [quick] * 200, [quick] * 200, 0, 10)) == []
    assert not_held(move_figures(50.0, [quick] * 200, [slow] * 200, 0, 10)) == [
        "10 promotions and rollbacks: answer p99 / without"
    ]
    assert not_held(move_figures(50.0, [quick] * 200, [*[quick] * 200, failed], 1, 10)) == [
        "10 promotions and rollbacks: failed answers",
        "10 promotions and rollbacks: answers of mixed generations",
    ]


def test_each_kind_of_wrong_vector_has_a_figure_for_each_generation() -> None:
    good = Differences(set(), set(), set())
    assert not_held(kill_figures(["kill -9 encode"], 9, good, good, 0)) == []
    assert not_held(
        kill_figures([], 9, good._replace(extra={"p1"}), good._replace(missing={"p1"}, stale={"p2"}), 2)
    ) == [
        "kills: kill -9 of a random process during the backfill",
        "kills: what make chaos finds wrong in the serving generation",
        "kills: extra vectors of the serving generation",
        "kills: missing vectors of the built generation",
        "kills: stale vectors of the built generation",
    ]


def test_memory_that_libraries_take_does_not_hide_what_a_generation_takes() -> None:
    one = Memory(all=1_000.0, without_libraries=100.0)
    assert not_held(memory_figures(one, Memory(1_080.0, 180.0), 9)) == []
    assert not_held(memory_figures(one, Memory(1_081.0, 181.0), 9)) == [
        "memory of serve with two generations / with one (without the code of libraries)"
    ]
    own, resident = resident_memory(os.getpid()), psutil.Process().memory_info().rss / 1e6
    assert own.all == pytest.approx(resident, rel=0.05)
    assert 0 < own.without_libraries < own.all


def test_its_help_names_each_part(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["reindex", "--help"])
    with pytest.raises(SystemExit, match="0"):
        reindex.main()
    named = re.findall(r"^  ([a-z]+) {2,}", capsys.readouterr().out, re.MULTILINE)
    assert [name for name in named if name in reindex.Sizes._fields] == list(reindex.Sizes._fields)


def test_make_bench_runs_all_but_those_that_the_readme_names() -> None:
    (line,) = (line for line in MAKEFILE.read_text().splitlines() if line.startswith("BENCHMARKS := "))
    names = line.partition(" := ")[2].split()
    rows = [row for row in README.read_text().splitlines() if row.startswith("| `python -m benchmarks.")]
    others = re.findall(r"`(?:python -m benchmarks\.|… )([a-z_]+)", "".join(rows))
    known = {module.name for module in pkgutil.iter_modules(benchmarks.__path__)} - {"kit"}
    assert sorted([*names, *others]) == sorted(known)


def not_held(figures: list[Figure]) -> list[str]:
    return [figure.name for figure in figures if not figure.holds]
