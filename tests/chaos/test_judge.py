"""Every column of the table of `make chaos` goes red for its own defect, and for no other."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nearline.chaos.expected_state import expected_state
from nearline.chaos.expected_vectors import ReEncodedVectors
from nearline.chaos.feed import Feed
from nearline.chaos.findings import Findings, Seen
from nearline.chaos.judge import Verdict, num_handles, verdict
from nearline.chaos.table import KILL, Round, figures, sentence
from tests.kit.data.faultless_pipeline import held_after
from tests.kit.data.planted_defects import (
    PLANTED_DEFECTS,
    Case,
    PlantedDefect,
    a_member,
    a_post,
    changed_entity,
    red_columns,
    without,
)
from tests.kit.packages import make_tiny_package

START = datetime(2026, 1, 5, tzinfo=UTC)
NUM_EVENTS = 600


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("judge")
    make_tiny_package(folder / "package", dimension=32)
    vectors = ReEncodedVectors(folder / "package")
    events = Feed(1, START).take(NUM_EVENTS)
    return Case(events, expected_state(events), held_after(events, vectors), vectors)


def test_nothing_is_red_where_nothing_is_wrong(case: Case) -> None:
    assert case.red() == set()
    assert case.end.deleted
    assert case.end.departed
    assert len(case.held.members) > 50


@pytest.mark.parametrize("first", [("activity",), ("post",), ("member",), ("activity", "member")], ids="-and-".join)
def test_nothing_is_red_in_whatever_order_the_topics_are_read(case: Case, first: tuple[str, ...]) -> None:
    """A member's history then has entries with other texts, or in another order, and they are right all the same."""
    events = sorted(case.events, key=lambda event: not event["type"].startswith(first))
    assert case.red(held_after(events, case.vectors)) == set()


@pytest.mark.parametrize("planted", PLANTED_DEFECTS, ids=lambda planted: f"{planted.column}: {planted.what}")
def test_a_planted_defect_is_red_in_its_column_and_in_no_other(case: Case, planted: PlantedDefect) -> None:
    assert case.red(planted.plant(case)) == {planted.column}


def test_a_vector_where_there_is_nothing_to_encode(case: Case) -> None:
    """A member who has only hidden something."""
    member_id = next(key for key, member in case.held.members.items() if not member.deleted and member.vector is None)
    held = changed_entity(
        "members", lambda _: member_id, lambda case, member: member._replace(vector=_vector_of(case))
    )(case)
    assert case.red(held) == {"members other vector"}


def _vector_of(case: Case) -> Any:
    return case.held.members[a_member(case)].vector


@pytest.mark.parametrize(
    ("column", "tier"),
    [("posts backwards", "cold posts"), ("posts backwards", "hot posts"), ("members backwards", "members")],
)
def test_a_revision_below_one_seen_before(case: Case, column: str, tier: str) -> None:
    entity_id = a_post(case) if column.startswith("posts") else a_member(case)
    seen: Seen = {}
    assert case.red(seen=seen) == set()
    assert case.red(seen=seen) == set()
    seen[tier, entity_id] += 1
    assert case.red(seen=seen) == {column}


def test_a_process_that_holds_too_many_files(case: Case) -> None:
    assert case.red(handles={"cold"}) == {"handles"}


def test_files_of_a_brokers_topics_do_not_count_not_even_deleted_ones(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "files = [open(name, 'w') for name in sys.argv[1:]]\n"
        "os.unlink(sys.argv[1])\n"
        "print(flush=True)\n"
        "input()"
    )
    topics, other = tmp_path / "kafka", tmp_path / "other"
    topics.mkdir()
    other.mkdir()
    command = [sys.executable, "-c", code, topics / "deleted", topics / "log", other / "file"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        numbers = [num_handles(process.pid, outside=folder) for folder in (topics, other, tmp_path / "neither")]
        process.communicate(b"\n")
    assert [numbers[2] - number for number in numbers] == [2, 1, 0]


NOTHING = Findings(*(set[str]() for _ in Findings._fields))
GOOD = Verdict(NOTHING, NOTHING, dead_letters=0, handles=set())


def test_what_takes_too_long_or_is_done_twice_too_often() -> None:
    assert red_columns([Round(KILL, ["kill -9 encode alone"], 29.0, GOOD, encoded_twice=100)]) == set()
    assert red_columns([Round(KILL, ["kill -9 encode alone"], 31.0, GOOD)]) == {f"{KILL}: seconds to recover, p99"}
    assert red_columns([Round(KILL, ["kill -9 encode alone"], 1.0, GOOD, encoded_twice=10**6)]) == {
        "encoded twice by one kill, at most"
    }


def test_every_column_that_has_a_bound_is_shown_to_go_red() -> None:
    bounded = {row["figure"] for row in figures([Round(KILL, ["f"], 1.0, GOOD, 0)]) if row["bound"] is not None}
    elsewhere = {"posts backwards", "members backwards", "handles", "encoded twice by one kill, at most"}
    assert bounded == {planted.column for planted in PLANTED_DEFECTS} | elsewhere | {f"{KILL}: seconds to recover, p99"}


def test_the_sentence_names_what_is_wrong(case: Case) -> None:
    judged = verdict(case.end, without("hot_posts", a_post)(case), case.vectors, {}, set())
    assert sentence(judged) == f"posts lost: ['{a_post(case)}']; dead letters: 0"
