"""What a training takes where the settings name neither templates nor a member form. A whole one is in
test_learning_what_is_served.py."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from encoders.package.manifest import PromptForm
from tests.kit.commands import Commands
from tests.kit.data.events import write_events
from tests.kit.data.training_events import events, feed_of, with_titles
from tests.kit.packages import make_tiny_package
from trainer.data.feed import Feed
from trainer.data.named_fields import carried_templates, carry_titles
from trainer.default_prompts import default_prompts_sentence, with_default_prompts
from trainer.plan import Plan
from trainer.settings import TemplateSettings, TrainSettings


@pytest.fixture(scope="module")
def feed() -> Feed:
    return feed_of(events(150))


def plan(feed: Feed, start: Path | None = None, **settings: Any) -> Plan:
    return Plan(feed.cut(0.15), 1_000, 0, TrainSettings.model_validate(settings), "plan", start)


def test_prompts_hold_what_the_events_carry_and_the_member_form_is_found(feed: Feed) -> None:
    chosen = with_default_prompts(feed, plan(feed, rate=1e-3))
    templates = TemplateSettings(post=("author", "age", "count.like", "text"), profile=(), history_ages=True)
    assert chosen.settings == TrainSettings(rate=1e-3, templates=templates, member_form="auto")
    assert chosen.texts_alone == TrainSettings(rate=1e-3, member_form="mean")
    assert replace(chosen, settings=chosen.texts_alone).prompts.are_texts
    chosen.refuse_what_is_not_learned()
    assert default_prompts_sentence(chosen).startswith(
        "prompts hold what the events carry: of posts author, age, count.like, text; of members what they acted on; "
        "both member forms, and texts alone, are tried on an inner split"
    )


def test_text_queries_are_learned_where_the_posts_have_titles(feed: Feed) -> None:
    titled = feed_of(with_titles(events(150)))
    chosen = with_default_prompts(titled, plan(titled))
    assert chosen.settings.tasks == {"search": 0.1}
    assert chosen.texts_alone is not None
    assert not chosen.texts_alone.tasks
    assert default_prompts_sentence(chosen).endswith(
        "; text queries are learned from posts' titles, by the task search, unless texts alone are best: then a query "
        "is a text like any other"
    )
    few = feed_of(with_titles(events(20)))
    assert default_prompts_sentence(with_default_prompts(few, plan(few))).endswith(
        "; the member form is prompt, because no inner split can say what is best; text queries are learned from "
        "posts' titles, by the task search"
    )
    without = with_default_prompts(feed, plan(feed))
    assert without.settings.tasks == {}
    assert default_prompts_sentence(without).endswith(
        "; no task teaches text queries, because too few posts have a title above their text"
    )


@pytest.mark.parametrize("tasks", [{}, {"tag": 1.0}])
def test_tasks_that_the_settings_name_are_kept(tasks: dict[str, float]) -> None:
    titled = feed_of(with_titles(events(150)))
    chosen = with_default_prompts(titled, plan(titled, tasks=tasks))
    assert (chosen.settings.tasks, chosen.settings.member_form) == (tasks, "auto")
    assert default_prompts_sentence(chosen).endswith("member_form in the settings")


def test_a_named_search_is_learned_by_texts_alone_too() -> None:
    titled = feed_of(with_titles(events(150)))
    chosen = with_default_prompts(titled, plan(titled, tasks={"search": 0.2}))
    assert chosen.texts_alone is not None
    assert chosen.texts_alone.tasks == {"search": 0.2}
    assert default_prompts_sentence(chosen).endswith("text queries are learned from posts' titles, by the task search")


def test_what_only_the_inner_split_measures_on_is_not_chosen() -> None:
    """The training on its earlier part would be refused."""
    recorded = [*events(150)]
    newest = [{**event, "action": "share"} if event["type"] == "activity" else event for event in recorded[330:]]
    feed = feed_of([*recorded[:330], *with_titles(newest)])
    asked = plan(feed)
    chosen = with_default_prompts(feed, asked)
    assert carried_templates(feed, asked.cut_us).post == ("author", "age", "count.like", "count.share", "text")
    assert carry_titles(feed, asked.cut_us)
    assert chosen.settings.templates is not None
    assert (chosen.settings.templates.post, chosen.settings.tasks) == (("author", "age", "count.like", "text"), {})


def test_what_the_settings_or_the_start_say_is_kept(feed: Feed, tmp_path: Path) -> None:
    asked: tuple[dict[str, Any], ...] = ({"member_form": "mean"}, {"member_form": "auto"}, {"templates": {}})
    for settings in asked:
        named = plan(feed, **settings)
        assert with_default_prompts(feed, named) is named
    start = make_tiny_package(tmp_path / "start", hidden=32, layers=1).folder
    following = plan(feed, start)
    assert with_default_prompts(feed, following) is following
    assert with_default_prompts(feed, plan(feed, tmp_path)).settings.member_form == "auto", "of a Hugging Face folder"


def test_the_form_is_prompt_where_no_inner_split_says_which_is_better(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = feed_of(events(20))
    for chosen in (with_default_prompts(few, plan(few)), _divided(feed, monkeypatch)):
        assert chosen.settings.templates is not None
        assert isinstance(chosen.prompts.form, PromptForm)
        chosen.refuse_what_is_not_learned()
        assert "the member form is prompt" in default_prompts_sentence(chosen)


def _divided(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """As if the weights were divided among devices."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    return with_default_prompts(feed, plan(feed))


def test_what_was_chosen_is_said_before_a_training_that_is_refused(tmp_path: Path) -> None:
    of_one = [{**event, "member_id": "m1"} if event["type"] == "activity" else event for event in events(40)]
    recorded = write_events(tmp_path / "events.jsonl", of_one)
    ran = Commands()("train", "--events", recorded, "--out", tmp_path / "out" / "package")
    *_, chosen, refused = ran.err.splitlines()
    assert chosen.startswith("prompts hold what the events carry: ")
    assert (ran.status, "give events of more members" in refused) == (1, True)
    assert not list(tmp_path.glob("out/*"))
