"""The main job of `make demo` in its plain form: on a made-up world whose truth is known."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nearline.demo.events import read_facts
from nearline.demo.job import DemoFailed, Input, Job
from nearline.demo.world import Truth, WorldSize, json_lines, make_world
from nearline.pipeline import Pipeline
from tests.e2e.conftest import ENVIRONMENT, Running
from tests.kit.data.events import post_deleted

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

SIZE = WorldSize(posts=60, members=8, activity=500, days=1)
"""Small: the answers to other tests' questions are full of the session's own world."""
IDS = ("post_id", "member_id", "author_id")


@pytest.fixture
def made_up(running: Running, tmp_path: Path) -> Input:
    """A small world of its own ids beside the session's, whose posts count as right answers too."""
    world = make_world(12, datetime.now(UTC) - timedelta(seconds=1), SIZE)
    file = tmp_path / "world.jsonl"
    file.write_text("".join(json_lines([_renamed(event) for event in world.events])))
    truth = world.truth
    subject_of = {_new(post_id): subject for post_id, subject in truth.subject_of.items()}
    return Input(
        file,
        read_facts(file),
        Truth(
            subject_of={**running.world.truth.subject_of, **subject_of},
            interests={_new(member_id): subjects for member_id, subjects in truth.interests.items()},
            former={},
            deleted_posts=[*map(_new, truth.deleted_posts)],
            deleted_members=[*map(_new, truth.deleted_members)],
        ),
    )


def test_the_demos_job_shows_what_it_promises(pipeline: Pipeline, made_up: Input) -> None:
    printed: list[str] = []
    # Its commands are processes: it runs two at a time.
    commands = Pipeline(pipeline.data_dir, environment=ENVIRONMENT)
    Job(commands, made_up, printed.append).run()
    text = "\n".join(printed)
    steps = ("1. All of it is searchable", "2. A fresh post is retrievable", "3. Two members", "4. demo-p", "5. Lag of")
    assert [step for step in steps if step not in text] == []
    assert text.count(", who cares about ") == 2
    percent, chance = map(int, re.findall(r"(\d+)%", text.partition("Of the best")[2]))
    assert percent > 3 * chance
    # Other tests go on without its posts.
    posts = [*made_up.facts.created_us, "demo-fresh"]
    pipeline.ingest([post_deleted(post_id) for post_id in posts])
    pipeline.wait()


def test_what_is_not_there_ends_the_demo(pipeline: Pipeline, made_up: Input) -> None:
    """The checks of the demo can fail: here none of the posts is there."""
    with pytest.raises(DemoFailed, match="the hot tier holds no post of the file"), pipeline.client() as client:
        Job(pipeline, made_up)._deletion(client)


def _renamed(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, **{name: _new(event[name]) for name in IDS if name in event}}


def _new(entity_id: str) -> str:
    return f"demo-{entity_id}"
