"""Input from which nothing can be learned or measured: one sentence, exit status 1, and nothing half-written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from encoders.package.manifest import PostTemplate, QueryTemplate, Templates
from schemas.times import to_rfc3339
from tests.kit.commands import CommandResult, Commands
from tests.kit.data.events import write_events
from tests.kit.data.training_events import TEXTS_ALONE, TINY_MODEL, events, feed_of
from tests.kit.packages import make_tiny_package

COUNTS = '[templates]\npost = ["count.like", "text"]\n'


@pytest.fixture
def commands() -> Commands:
    return Commands()


def refused(ran: CommandResult, folder: Path, words: str) -> None:
    assert ran.status == 1, ran.out
    assert words in ran.err
    assert ran.err.count("\n") == 1, ran.err
    left = [path.name for path in folder.iterdir()] if folder.exists() else []
    assert left == [], "what was begun is gone"


def train(
    commands: Commands, folder: Path, of: Sequence[dict[str, Any]], more: str = "", *options: Any
) -> CommandResult:
    """Writes to `folder / "out"`. Prompts hold texts alone unless `more` says otherwise."""
    model = TINY_MODEL if "member_form" in more or "[templates]" in more else TEXTS_ALONE
    (folder / "train.toml").write_text(model + more)
    return commands("train", "--events", write_events(folder / "events.jsonl", of), "--config", folder / "train.toml",
                    "--tokens", "500", "--out", folder / "out" / "package", *options)  # fmt: skip


def of_one_member() -> list[dict[str, Any]]:
    return [{**event, "member_id": "m1"} if event["type"] == "activity" else event for event in events(40)]


def without_counts() -> list[dict[str, Any]]:
    """Comments are positive, too."""
    return [{**event, "action": "comment"} if event["type"] == "activity" else event for event in events(40)]


@pytest.mark.parametrize("more", ["", 'member_form = "auto"\n', "evaluate_tokens = 100\n", COUNTS])
def test_a_world_of_one_member(commands: Commands, tmp_path: Path, more: str) -> None:
    ran = train(commands, tmp_path, of_one_member(), more)
    refused(ran, tmp_path / "out", "a model learns from how members differ: give events of more members")


def test_a_template_whose_counts_no_event_carries(commands: Commands, tmp_path: Path) -> None:
    ran = train(commands, tmp_path, without_counts(), COUNTS)
    refused(ran, tmp_path / "out", "templates.post names count.like, which no event before the held out ones carries")


def test_counts_that_only_held_out_events_carry(commands: Commands, tmp_path: Path) -> None:
    """A table of what was known before the cut would be of zeros."""
    of = without_counts()
    of[-1] = {**of[-1], "action": "like"}
    refused(train(commands, tmp_path, of, COUNTS), tmp_path / "out", "names count.like, which no event before the held")


def test_quantile_tables_of_a_feed_without_counts(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "counts.toml").write_text(COUNTS)
    start = make_tiny_package(tmp_path / "start", hidden=32, layers=1).folder
    out = tmp_path / "out"
    create = ("package", "create", start, "--out", out, "--config", tmp_path / "counts.toml")
    refused(commands(*create), out, "whose quantile tables are fitted on events; give --events")
    file = write_events(tmp_path / "events.jsonl", without_counts())
    refused(commands(*create, "--events", file), out, "templates.post names count.like, which no event")
    nothing = write_events(tmp_path / "posts.jsonl", [event for event in events(5) if event["type"] != "activity"])
    refused(commands(*create, "--events", nothing), out, "the events hold no positive action")


def test_a_start_with_other_templates(commands: Commands, tmp_path: Path) -> None:
    templates = Templates(PostTemplate(("author", "text")))
    start = make_tiny_package(tmp_path / "start", hidden=32, layers=1, templates=templates).folder
    ran = train(commands, tmp_path, [*events(40)], COUNTS, "--from", start)
    refused(ran, tmp_path / "out", "has other templates than the settings name")
    ran = train(commands, tmp_path, [*events(40)], 'member_form = "auto"\n', "--from", start)
    refused(ran, tmp_path / "out", "has the member form mean, and member_form is auto")


def test_a_start_whose_counts_no_event_carries(commands: Commands, tmp_path: Path) -> None:
    """Its tables would be fitted anew, and every post have the highest percentile."""
    templates = Templates(PostTemplate(("count.like", "text")))
    start = make_tiny_package(tmp_path / "start", hidden=32, layers=1, templates=templates).folder
    ran = train(commands, tmp_path, without_counts(), "", "--from", start)
    refused(ran, tmp_path / "out", f"the prompts of {start} hold count.like, which no event before the held out ones")


QUERY = '[templates]\nquery_instruction = "find"\n'


def test_an_instruction_of_queries_that_no_task_teaches(commands: Commands, tmp_path: Path) -> None:
    words = "text queries begin with query_instruction, which only the task search teaches"
    refused(train(commands, tmp_path, [*events(40)], QUERY), tmp_path / "out", words)
    templates = Templates(query=QueryTemplate("find"))
    start = make_tiny_package(tmp_path / "start", hidden=32, layers=1, templates=templates).folder
    refused(train(commands, tmp_path, [*events(40)], "", "--from", start), tmp_path / "out", words)


def test_what_the_member_form_leaves_out(commands: Commands, tmp_path: Path) -> None:
    asked = '[templates]\nprofile = ["headline", "language"]\nhistory_ages = true\nmember_instruction = "read"\n'
    ran = train(commands, tmp_path, [*events(40)], asked)
    words = "templates asks for member_instruction, history_ages, the language of profiles, which the member form mean"
    refused(ran, tmp_path / "out", words)


def test_a_start_that_knows_all_of_the_inner_split(commands: Commands, tmp_path: Path) -> None:
    known = {"until": to_rfc3339(feed_of(events(150)).cut(0.15))}
    start = make_tiny_package(tmp_path / "start", hidden=32, layers=1, training=known).folder
    ran = train(commands, tmp_path, [*events(150)], "evaluate_tokens = 100\n", "--from", start)
    refused(ran, tmp_path / "out", f"{start} was trained until {known['until']}, so too little is new to it")


def test_nothing_held_out_cannot_be_measured(commands: Commands, tmp_path: Path) -> None:
    """`nearline train --holdout 0` is right: it learns from everything and says no figures."""
    file, figures = write_events(tmp_path / "events.jsonl", events(40)), tmp_path / "out" / "figures.json"
    figures.parent.mkdir()
    ran = commands("evaluate", "--events", file, "--holdout", "0", "--json", figures)
    refused(ran, figures.parent, "--holdout")


def test_an_inner_split_that_measures_nobody(commands: Commands, tmp_path: Path) -> None:
    """Found out after the work folder was made."""
    few = [*events(24, num_members=12)]
    ran = train(commands, tmp_path, few, "evaluate_tokens = 100\n", "--holdout", "0")
    refused(ran, tmp_path / "out", "no member has 5 positive actions before the held out ones")
