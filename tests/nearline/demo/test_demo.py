"""`make demo` in its three forms. The job on a made-up world of known truth is in `tests/e2e/test_demo.py`."""

import gzip
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nearline.demo.events import read_facts
from nearline.demo.run import made_up
from nearline.demo.world import WorldSize, json_lines, make_world
from tests.kit.folders import temporary_data
from tests.kit.instances import processes_of
from tests.kit.packages import make_tiny_package

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 1, 8, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ([], ""),
        (["EVENTS=my events.jsonl.gz"], ' --events "my events.jsonl.gz"'),
        (["PACKAGE=my package"], ' --package "my package"'),
        (["EVENTS=e.jsonl", "PACKAGE=p"], ' --events "e.jsonl" --package "p"'),
    ],
)
def test_make_demo_passes_on_what_it_is_given(variables: list[str], arguments: str) -> None:
    command = ["make", "--no-print-directory", "-n", "demo", *variables]
    # Of a `make test` around this.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    runs = done.stdout.splitlines()[-1].split(" -m ", 1)[1]
    assert " ".join(runs.split()) == f"nearline.demo.run{arguments}"


def test_the_plain_form_makes_a_world_and_knows_its_truth(tmp_path: Path) -> None:
    world = made_up(tmp_path / "data", WorldSize(posts=200, members=20, activity=600))
    assert world.truth is not None
    gone = set(world.truth.deleted_posts)
    assert world.facts.created_us.keys() == world.truth.subject_of.keys() - gone
    assert world.facts.newest_post() not in gone
    assert set(world.facts.busiest_members(2)) <= world.truth.interests.keys()


def test_both_tiers_have_posts_to_show(tmp_path: Path) -> None:
    file = tmp_path / "world.jsonl"
    file.write_text("".join(json_lines(make_world(3, NOW, WorldSize(60, 6, 60)).events)))
    facts = read_facts(file)
    assert facts.hot_posts == (len(facts.created_us) + 1) // 2


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, because sockets are in it."""
    with temporary_data("nearline-test-demo-") as folder:
        yield folder


@pytest.mark.broker
@pytest.mark.timeout(600)
def test_a_file_of_events_and_another_package(folder: Path) -> None:
    """A whole pipeline for one test: the command promises to start it, show what came of it, and leave nothing."""
    events, package, temporary = folder / "events.jsonl.gz", folder / "package", folder / "tmp"
    make_tiny_package(package, dimension=32)
    temporary.mkdir()
    world = make_world(3, NOW, WorldSize(posts=120, members=10, activity=600, days=2))
    events.write_bytes(gzip.compress("".join(json_lines(world.events)).encode()))
    command = [sys.executable, "-m", "nearline.demo.run", "--events", str(events), "--package", str(package)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=580, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    printed = done.stdout
    assert f"events.jsonl.gz: {len(world.events)} events" in printed.replace(",", "")
    assert "1. All of it is searchable after" in printed
    assert "2. A fresh post is retrievable" in printed
    assert "3. Two members, what they acted on" in printed
    assert "Of the best" not in printed, "nobody knows the truth of a file"
    assert "was in both tiers and is deleted: it is gone" in printed
    assert "Dead letters: 0." in printed
    lag_table, _, replacement = printed.partition("5. Lag")[2].partition("6. The model is replaced by narrower-")
    lags = [line.split()[-1] for line in lag_table.splitlines() if line.startswith("     ")]
    assert len(lags) > 5
    # One of the monitor's canaries may be under way, with the markers of its transactions.
    assert max(int(lag) for lag in lags) <= 4
    for act in ("build: complete", "gate narrower-", "promote: in effect", "rollback: in effect"):
        assert f"nearline generations {act}" in replacement
    assert re.search(r"Meanwhile \d+ posts came in, and no question failed\.", replacement)
    assert "no process is left" in printed
    assert processes_of(temporary) == []
    assert list(temporary.iterdir()) == []


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nearline.demo.run", "--events", str(tmp_path / "nothing.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "nothing.jsonl' does not exist" in done.stderr
