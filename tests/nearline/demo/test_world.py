import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import pytest
from click.testing import CliRunner

from nearline.demo.subjects import COMMON, SUBJECTS
from nearline.demo.world import DEMO_SIZE, World, WorldSize, json_lines, make_world
from nearline.demo.world_command import main
from schemas.events import parse_event

NOW = datetime(2026, 1, 8, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(1, NOW, WorldSize(posts=3_000, members=300, activity=15_000))


def test_the_same_seed_gives_the_same_world_and_another_seed_another_one() -> None:
    size = WorldSize(posts=50, members=10, activity=100)
    assert make_world(5, NOW, size) == make_world(5, NOW, size)
    assert make_world(5, NOW, size) != make_world(6, NOW, size)


def test_every_line_is_an_event_that_nearline_takes(world: World) -> None:
    for line in json_lines(world.events):
        parse_event(line.encode())


def test_events_come_in_the_order_of_their_times_and_end_now(world: World) -> None:
    times = [event.get("at", event.get("created_at")) for event in world.events]
    assert times == sorted(times)
    assert NOW - timedelta(hours=1) < datetime.fromisoformat(times[-1]) <= NOW


def test_posts_are_distinct_and_their_subjects_known(world: World) -> None:
    texts = [event["text"] for event in world.events if "text" in event]
    assert len(set(texts)) == len(texts)
    created = {event["post_id"] for event in world.events if event["type"] == "post.created"}
    assert created == set(world.truth.subject_of)
    assert len(set(world.truth.subject_of.values())) == len(SUBJECTS) >= 24


def test_subjects_share_words_with_each_other_and_with_all() -> None:
    shared = [pair for pair in combinations(SUBJECTS, 2) if set(SUBJECTS[pair[0]]) & set(SUBJECTS[pair[1]])]
    assert len(shared) > len(SUBJECTS)
    assert len({word for words in SUBJECTS.values() for word in words} & set(COMMON)) > 10


def test_activity_follows_interests_as_they_are_then(world: World) -> None:
    subject_of, truth = world.truth.subject_of, world.truth
    follows: Counter[bool] = Counter()
    for event in world.events:
        if event["type"] == "activity" and event["action"] in {"like", "comment", "share"}:
            member = event["member_id"]
            known = {*truth.interests[member], *truth.former.get(member, [])}
            follows[subject_of[event["post_id"]] in known] += 1
    assert follows[True] > 0.95 * follows.total()


def test_interests_change_posts_are_rewritten_and_taken_away(world: World) -> None:
    types = Counter(event["type"] for event in world.events)
    assert world.truth.former
    assert types["post.updated"] == 90
    assert types["post.deleted"] == len(world.truth.deleted_posts) == 60
    assert types["member.deleted"] == len(world.truth.deleted_members) == 3
    profiles = {event["member_id"] for event in world.events if event["type"] == "member.updated"}
    assert 0 < 300 - len(profiles) < 60


def test_nobody_acts_on_a_post_before_it_exists(world: World) -> None:
    created = {e["post_id"]: e["created_at"] for e in world.events if e["type"] == "post.created"}
    assert all(e["at"] >= created[e["post_id"]] for e in world.events if e["type"] == "activity")


def test_the_command_writes_events_and_the_truth(tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    run = CliRunner().invoke(main, ["--posts", "40", "--members", "8", "--activity", "60", "--truth", str(truth)])
    assert run.exit_code == 0, run.output
    posts = [event for event in map(json.loads, run.stdout.splitlines()) if event["type"] == "post.created"]
    assert len(posts) == len(json.loads(truth.read_text())["subject_of"]) == 40


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--days", "nan"], "'--days': nan is not a number"), (["--truth", "/proc/x/f"], "there is no folder /proc/x")],
)
def test_the_command_refuses_an_option_before_it_writes(options: list[str], words: str) -> None:
    run = CliRunner().invoke(main, ["--posts", "40", "--members", "8", "--activity", "60", *options])
    assert (run.exit_code, run.stdout) == (2, "")
    assert words in run.stderr


def test_the_demo_size_is_thousands_of_posts() -> None:
    assert DEMO_SIZE.posts >= 2_000
