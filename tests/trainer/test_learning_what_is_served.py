"""Trainings of members and posts as they were: whole prompts, numbers, both member forms."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast, TrainerControl, TrainerState

from encoders.encoder import Encoder
from encoders.package.manifest import HISTORY_AGE, MeanForm, PromptForm
from encoders.package.model_package import ModelPackage
from schemas.ids import Micros
from tests.kit.commands import CommandResult, Commands
from tests.kit.data.contexts import member_context
from tests.kit.data.events import member_updated, write_events
from tests.kit.data.training_events import START, SUBJECTS, TINY_MODEL, events, feed_of
from trainer.checkpoints import keep_checkpoints
from trainer.data.feed import Feed
from trainer.data.replay import replay_until
from trainer.default_prompts import with_default_prompts
from trainer.inner_split import Measurements, Quality, StopEarly, try_on_inner_split
from trainer.plan import Plan
from trainer.settings import read_settings
from trainer.training import train

TOKENS = 24_000
WHOLE_PROMPTS = """
member_form = "prompt"
member_tokens = 96
batch_tokens = 2_000

[templates]
post = ["author", "age", "count.like", "text"]
profile = ["headline"]
history_ages = true
"""


def recorded(num_posts: int = 300) -> list[dict[str, Any]]:
    """Half of the members say in their profile what they like."""
    profiles = [
        member_updated(f"m{member}", headline=SUBJECTS[member % len(SUBJECTS)], at=START) for member in range(0, 24, 2)
    ]
    return [*profiles, *events(num_posts)]


def settings_file(folder: Path, more: str = WHOLE_PROMPTS) -> Path:
    file = folder / "train.toml"
    # What is named in both is named by `more` alone.
    names = {line.partition(" = ")[0] for line in more.splitlines()}
    kept = [line for line in TINY_MODEL.splitlines() if line.partition(" = ")[0] not in names]
    file.write_text("\n".join(kept) + "\n" + more)
    return file


@pytest.fixture(scope="module")
def feed() -> Feed:
    return feed_of(recorded())


@pytest.fixture(scope="module")
def plan(feed: Feed, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    settings = read_settings(settings_file(tmp_path_factory.mktemp("settings")))
    return Plan(feed.cut(0.15), TOKENS, 0, settings, "whole")


@pytest.fixture(scope="module")
def package(feed: Feed, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    package = train(feed, plan, tmp_path_factory.mktemp("packages") / "whole")
    assert package is not None
    return package


@pytest.fixture
def commands() -> Commands:
    return Commands()


def test_a_package_with_numbers_and_member_prompts_is_trained(package: ModelPackage, plan: Plan) -> None:
    manifest = package.manifest
    assert manifest.templates.post.fields == ("author", "age", "count.like", "text")
    assert manifest.member_form == PromptForm(50)
    assert (manifest.token_limits.post, manifest.token_limits.member) == (128, 96)
    assert {"age", "count.like", HISTORY_AGE} <= manifest.quantiles.keys()
    assert manifest.quantiles[HISTORY_AGE][-1] > 24 * 3600
    record = manifest.training
    assert record["losses"][-1][1] < record["losses"][0][1]
    assert record["seen"]["tokens"] <= TOKENS
    recalls = {figures["history"]: figures["groups"]["protocol"]["recall"]["10"] for figures in record["figures"]}
    assert recalls["acted"] > 0.3, "chance finds 0.22"


def test_members_with_a_profile_alone_find_posts_of_their_subject(
    package: ModelPackage, feed: Feed, plan: Plan
) -> None:
    """Their profiles are in no prompt that a package without this training knows."""
    encoder = Encoder.load(package.folder, device="cpu")
    outcomes = encoder.encode_members([member_context(headline=subject) for subject in SUBJECTS])
    posts = [post for post in feed.posts.values() if post.created_at_us >= plan.cut_us]
    members, vectors = (np.stack([np.asarray(vector) for vector in all_of]) for all_of in (
        outcomes, encoder.encode_posts(posts)
    ))  # fmt: skip
    subjects = [int(post.author_id[1]) for post in posts]
    scores = members @ vectors.T
    own = np.mean([scores[subject, row] for row, subject in enumerate(subjects)])
    assert own > scores.mean()


def test_the_tables_are_of_what_was_known_before_the_cut(package: ModelPackage, feed: Feed, plan: Plan) -> None:
    counts = [row.state.counts.get("like", 0) for row in replay_until(feed, plan.cut_us).posts.values()]
    assert package.manifest.quantiles["count.like"][-1] == max(counts)


def test_a_percentile_is_one_token(package: ModelPackage) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(package.folder, local_files_only=True)
    assert {len(tokenizer.encode(str(number))) for number in range(1, 101)} == {1}


def test_training_goes_on_from_it_with_its_prompts(
    package: ModelPackage, feed: Feed, plan: Plan, tmp_path: Path
) -> None:
    (tmp_path / "plain.toml").write_text(TINY_MODEL)
    settings = read_settings(tmp_path / "plain.toml")
    following = Plan(Micros(plan.cut_us - 1), 3_000, 0, settings, "next", package.folder)
    trained = train(feed, following, tmp_path / "next")
    assert trained is not None
    assert (trained.manifest.templates, trained.member_form) == (package.manifest.templates, package.member_form)
    assert trained.manifest.training["until"] == package.manifest.training["until"], "what its base knows it knows"


def test_without_prompts_in_the_settings_fields_form_and_tokens_are_found(commands: Commands, tmp_path: Path) -> None:
    """The fields are those in the events; the member form, or texts alone, and the tokens come of an inner split."""
    choose = "member_tokens = 64\nbatch_tokens = 256\nevaluate_tokens = 500\npatience = 1\n"
    config = settings_file(tmp_path, choose)
    events_file = write_events(tmp_path / "events.jsonl", recorded(120))
    ran = train_command(commands, events_file, config, tmp_path / "auto")
    assert ran.status == 0, ran.err
    fields = "of posts author, age, count.like, text; of members headline, what they acted on"
    assert f"prompts hold what the events carry: {fields}; both member forms, and texts alone, are tried" in ran.err
    package = ModelPackage.load(tmp_path / "auto")
    templates, record = package.manifest.templates, package.manifest.training
    inner = record["inner_split"]
    assert inner["until"] < record["until"]
    assert set(inner["measured"]) == {"mean", "prompt", "texts"}
    measured = [{"name": name, **entry} for name, entries in inner["measured"].items() for entry in entries]
    best = max(measured, key=lambda entry: (entry["recall"], entry["ndcg"]))  # the first one of several
    assert inner["chosen"] == best["name"]
    if best["name"] == "texts":
        assert (templates.post.fields, record["settings"]["templates"]) == (("text",), None)
    else:
        assert templates.post.fields == ("author", "age", "count.like", "text")
        assert (templates.member.profile, templates.member.history_ages) == (("headline",), True)
        assert record["settings"]["templates"]["post"] == [*templates.post.fields]
    assert record["settings"]["member_form"] == ("prompt" if best["name"] == "prompt" else "mean")
    assert isinstance(package.member_form, PromptForm if best["name"] == "prompt" else MeanForm)
    assert record["tokens"] == best["tokens"] <= 1_000
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    (tmp_path / "work").mkdir()
    feed = feed_of(recorded(120))
    plan = with_default_prompts(feed, Plan(feed.cut(0.15), 1_000, 0, read_settings(config), "auto"))
    before = Feed(feed.before(plan.cut_us), feed.rules)
    chosen, again = try_on_inner_split(before, plan, tmp_path / "work")
    assert again == {"inner_split": inner}, "nothing from the cut on is read for the choice"
    trainings = sum(1 for _ in (tmp_path / "work").glob("inner-*/checkpoint-*"))
    assert (trainings, try_on_inner_split(before, plan, tmp_path / "work")) == (0, (chosen, again)), "measured once"


def train_command(commands: Commands, events_file: Path, config: Path, out: Path, *more: str | Path) -> CommandResult:
    return commands(
        "train", "--events", events_file, "--config", config, "--out", out, "--tokens", "1000", *more
    )  # fmt: skip


def test_bad_input_is_one_sentence_and_leaves_nothing(
    commands: Commands, package: ModelPackage, tmp_path: Path
) -> None:
    events_file = write_events(tmp_path / "events.jsonl", recorded(60))
    out = tmp_path / "out" / "package"
    refusals = (
        ('[templates]\npost = ["language", "text"]', [], "templates.post names language, which no event"),
        ('[templates]\npost = ["count.share", "text"]', [], "templates.post names count.share, which no event"),
        ('[templates]\nprofile = ["industry"]', [], "templates.profile names industry, which no event"),
        ('[templates]\npost = ["author", "text"]', ["--from", package.folder], "has other templates than the settings"),
        ('member_form = "mean"', ["--from", package.folder], "has the member form prompt, and member_form is mean"),
        ('[tasks]\nsearch = 1.0\n[templates]\npost = ["author", "text"]', [], "too little for the task search"),
    )
    for number, (more, options, words) in enumerate(refusals):
        folder = tmp_path / str(number)
        folder.mkdir()
        ran = train_command(commands, events_file, settings_file(folder, more), out, *options)
        assert ran.status == 1, more
        assert words in ran.err
        assert ran.err.count("\n") == 1, ran.err
        assert not out.parent.exists() or not list(out.parent.iterdir()), more


def test_without_anything_held_out_it_is_trained_and_not_measured(commands: Commands, tmp_path: Path) -> None:
    events_file = write_events(tmp_path / "events.jsonl", recorded(60))
    ran = train_command(commands, events_file, settings_file(tmp_path), tmp_path / "all", "--holdout", "0")
    assert ran.status == 0, ran.err
    manifest = json.loads((tmp_path / "all" / "nearline.json").read_bytes())
    assert "figures" not in manifest["training"]


class InMemory(dict[int, Any]):
    """In memory, for `StopEarly`."""

    def __iter__(self) -> Any:
        return iter(sorted(self.items()))

    def add(self, step: int, measure: Any) -> None:
        self[step] = measure()


def test_a_training_ends_when_no_measurement_in_a_row_is_better() -> None:
    def stopped(*recalls: float) -> int:
        to_come = iter(recalls)
        stop = StopEarly(InMemory(), lambda: next(to_come), 10, patience=2)  # type: ignore[arg-type, return-value]
        state, control = TrainerState(), TrainerControl()
        while not control.should_training_stop and state.global_step < 10 * len(recalls):
            state.global_step += 1
            stop.on_step_end(None, state, control)
        return state.global_step

    assert stopped(0.1, 0.3, 0.2, 0.3, 0.9) == 40
    assert stopped(0.1, 0.2, 0.1, 0.3, 0.2) == 50


def test_what_was_measured_is_kept_when_the_training_fails(tmp_path: Path) -> None:
    """So a training that goes on measures nothing twice. What a kill left half-written counts for nothing."""
    folder = tmp_path / "inner-mean"
    folder.mkdir()
    file = folder / "measurements.json"

    def fail_after_measuring() -> None:
        Measurements(file).add(5, lambda: Quality(0.5, 0.4))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), keep_checkpoints(tmp_path):
        fail_after_measuring()
    file.with_suffix(".partial").write_text("{")
    again = Measurements(file)
    assert [*again] == [(5, Quality(0.5, 0.4))]
    assert not again.are_complete
    again.complete()
    assert Measurements(file).are_complete
