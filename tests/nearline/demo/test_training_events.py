"""What the demo's package is trained on, and that the committed package was trained so."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

import nearline.demo
from encoders.package.model_package import ModelPackage
from nearline.demo.subjects import SUBJECTS
from nearline.demo.training_events import training_events
from nearline.demo.world import Event, json_lines
from schemas.events import parse_event
from trainer.settings import TrainSettings, read_settings

DEMO = Path(nearline.demo.__file__).parent
NOW = datetime(2026, 1, 8, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return list(training_events(NOW))


def test_every_line_is_an_event_that_nearline_takes(events: list[Event]) -> None:
    for line in json_lines(events):
        parse_event(line.encode())


def test_events_come_in_the_order_of_their_times_and_end_now(events: list[Event]) -> None:
    times = [datetime.fromisoformat(event.get("at", event.get("created_at"))) for event in events]
    assert times == sorted(times)
    assert times[-1] == NOW


def test_each_post_is_liked_by_the_one_reader_of_its_author(events: list[Event]) -> None:
    authors = {event["post_id"]: event["author_id"] for event in events if event["type"] == "post.created"}
    likes = {event["post_id"]: event["member_id"] for event in events if event["type"] == "activity"}
    assert likes == {post_id: f"reader of {author}" for post_id, author in authors.items()}


def test_subjects_modules_and_invented_subjects_are_all_there(events: list[Event]) -> None:
    counts = Counter(event["author_id"] for event in events if event["type"] == "post.created")
    assert all(counts[subject] > 200 for subject in SUBJECTS)
    assert counts["argparse.py"] > 10
    assert sum(author.startswith("invented ") for author in counts) > 1_000


def test_the_committed_package_was_trained_with_the_committed_settings() -> None:
    training = ModelPackage.load(DEMO / "package").manifest.training
    settings = read_settings(DEMO / "training_whole_texts.toml").model_dump(mode="json")
    assert training["start"] == "half-texts"
    # What is not given is recorded as it was chosen: 2,048 tokens in a pass, 128 of a text.
    recorded = {**training["settings"], "token_dropout": None, "pass_tokens": None, "train_tokens": None}
    assert recorded == {name: settings[name] for name in recorded}
    newer = settings.keys() - recorded.keys()
    fields = TrainSettings.model_fields
    assert {name: settings[name] for name in newer} == {name: fields[name].default for name in newer}


def test_both_parts_of_the_training_have_readable_settings_for_one_model() -> None:
    first, second = (read_settings(DEMO / name) for name in ("training.toml", "training_whole_texts.toml"))
    rates = {"rate": second.rate, "embedding_rate": second.embedding_rate}
    assert first.member_form == "mean", "of texts alone, which the package goes on with"
    assert first.model_copy(update=rates | {"member_form": None}) == second
