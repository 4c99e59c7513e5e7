from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from encoders.package.manifest import (
    MeanForm,
    MemberTemplate,
    MemberVectorsForm,
    PostTemplate,
    PromptForm,
    QueryTemplate,
    Templates,
    TokenLimits,
)
from schemas.ids import Micros
from schemas.times import from_rfc3339, to_rfc3339
from tests.kit.data.training_events import events, feed_of
from tests.kit.packages import make_tiny_package
from trainer.data.dataset import training_data
from trainer.errors import BadStart
from trainer.plan import PackagePrompts, Plan
from trainer.settings import TrainSettings, read_settings

CUT = from_rfc3339("2026-01-10T00:00:00Z")
LATER = "2026-01-20T00:00:00Z"


def plan(start: Path | None = None, **settings: Any) -> Plan:
    return Plan(CUT, 1_000, 0, TrainSettings.model_validate(settings), "plan", start)


def package(folder: Path, **options: Any) -> Path:
    return make_tiny_package(folder / "start", hidden=32, layers=1, **options).folder


def test_the_rates_suit_the_start(tmp_path: Path) -> None:
    trained = package(tmp_path, training={"settings": {"rate": 4e-3, "embedding_rate": 8e-3}})
    untrained = package(tmp_path / "untrained")
    assert plan().rates == (2e-3, 6e-3)
    assert plan(trained).rates == (2e-3, 4e-3), "half of what it was trained with"
    assert plan(untrained).rates == plan(tmp_path / "hugging-face").rates == (2e-5, 6e-5)
    assert plan(untrained, lora_rank=4).rates.rate == 2e-4
    assert plan(trained, rate=1e-2).rates == (1e-2, 4e-3)


@pytest.mark.parametrize("until", [LATER, "2026-01-02T00:00:00Z", None])
def test_what_a_base_knows_the_package_knows(tmp_path: Path, until: str | None) -> None:
    feed = feed_of(events(150))
    base = package(tmp_path, training={} if until is None else {"until": until})
    record = plan(base).record(training_data(feed, CUT))
    assert record["until"] == (LATER if until == LATER else to_rfc3339(CUT))


def test_members_have_several_vectors_if_the_settings_or_the_start_say_so(tmp_path: Path) -> None:
    several = MemberVectorsForm(most=3, merge="best")
    assert plan().member_vectors is UNSET
    assert plan(member_vectors={}).member_vectors == MemberVectorsForm()
    start = package(tmp_path, member_vectors=several)
    assert plan(start).member_vectors == several
    assert plan(start, member_vectors={"most": 4}).member_vectors == MemberVectorsForm(most=4)
    file = tmp_path / "train.toml"
    file.write_text("[member_vectors]\nmany = 3\n")
    with pytest.raises(
        BadStart, match=r"member_vectors\.many .* is no setting; there are: most, distance, half_life_s, merge"
    ):
        read_settings(file)


def test_prompts_are_those_of_the_settings_or_of_the_start(tmp_path: Path) -> None:
    text = Templates(PostTemplate(("text",)))
    assert plan().prompts == (text, MeanForm())
    asked = {"post": ["count.like", "text"], "profile": ["headline"], "history_ages": True, "query_instruction": "find"}
    templates = Templates(
        PostTemplate(("count.like", "text")), MemberTemplate(("headline",), history_ages=True), QueryTemplate("find")
    )
    assert plan(templates=asked, member_form="prompt", history=9).prompts == (templates, PromptForm(9))
    start = package(tmp_path, templates=templates, member_form=PromptForm())
    assert plan(start).prompts == plan(start, templates=asked).prompts == (templates, PromptForm())
    assert plan(start, member_form="prompt").prompts.form == PromptForm()


def test_a_start_with_other_prompts_is_refused(tmp_path: Path) -> None:
    start = package(tmp_path)
    with pytest.raises(BadStart, match="has other templates than the settings name"):
        _ = plan(start, templates={"post": ["author", "text"]}).prompts
    for form in ("prompt", "auto"):
        with pytest.raises(BadStart, match=f"has the member form mean, and member_form is {form}"):
            _ = plan(start, member_form=form).prompts


def test_of_a_text_training_sees_as_much_as_is_served(tmp_path: Path) -> None:
    start = package(tmp_path, token_limits=TokenLimits(post=300))
    assert (plan().train_tokens, plan(post_tokens=64).train_tokens) == (128, 64)
    assert (plan(start).train_tokens, plan(tmp_path / "hugging-face").train_tokens) == (300, TokenLimits().post)
    assert plan(start, train_tokens=50).train_tokens == 50
    assert plan(start).record(training_data(feed_of(events(150)), CUT))["settings"]["train_tokens"] == 300


def test_what_is_asked_of_prompts_is_learned(tmp_path: Path) -> None:
    """Or refused: see test_bad_input.py."""
    query, member = {"query_instruction": "find"}, {"history_ages": True, "member_instruction": "read"}
    plan(templates=query, tasks={"search": 1.0}).refuse_what_is_not_learned()
    plan(templates=member, member_form="prompt").refuse_what_is_not_learned()
    plan(templates=member, member_form="auto").refuse_what_is_not_learned()
    taught = package(tmp_path, templates=Templates(query=QueryTemplate("find")), training={"until": LATER})
    plan(taught).refuse_what_is_not_learned()


def test_texts_alone_need_no_examples(tmp_path: Path) -> None:
    start = package(tmp_path, member_form=PromptForm())
    assert plan().example_negatives is plan(member_form="mean").example_negatives is None
    assert plan(member_form="prompt", negatives=1).example_negatives == 1
    assert plan(templates={}).example_negatives == plan(start).example_negatives == 2


def test_a_query_without_an_instruction_has_no_template() -> None:
    assert plan(templates={}).prompts == PackagePrompts(Templates(query=UNSET), MeanForm())


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (
            '[templates]\npost = ["count.likes", "text"]',
            "templates in .* is wrong: the post template wants count.likes",
        ),
        ('[templates]\npost = ["text", "author"]', "the post template ends with the field text"),
        ('[templates]\nprofile = ["name"]', "the member template wants name"),
        ('[templates]\nfields = ["text"]', "templates.fields in .* is no setting; there are: post, post_instruction"),
        ('member_form = "best"', "member_form in .* is wrong"),
        ("main = 0.0", "tasks in .* is wrong: main is 0, and no other task is named; name one of interest"),
        ("[tasks]\nsubject = 1.0", "tasks.subject in .* is wrong"),
        ("profile_only = 1.0", "profile_only in .* is wrong"),
        ("temperature = nan", "temperature in .* is wrong: input should be a finite number"),
        ("rate = inf", "rate in .* is wrong: input should be a finite number"),
        ("[tasks]\ntag = inf", "tasks.tag in .* is wrong: input should be a finite number"),
        ("[member_vectors]\nhalf_life_s = inf", "member_vectors.half_life_s in .* is wrong: input should be a finite"),
    ],
)
def test_wrong_settings_are_one_sentence(tmp_path: Path, toml: str, words: str) -> None:
    file = tmp_path / "train.toml"
    file.write_text(toml)
    with pytest.raises(BadStart, match=words) as caught:
        read_settings(file)
    assert "\n" not in str(caught.value)


def test_a_plan_for_another_cut_is_another_plan() -> None:
    assert replace(plan(), cut_us=Micros(5)).until_us == 5
