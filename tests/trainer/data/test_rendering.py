"""What training learns from is, token by token, what the encode stage encodes."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from encoders.encoder import Encoder
from encoders.package.manifest import (
    MeanForm,
    MemberForm,
    MemberTemplate,
    PostTemplate,
    PromptForm,
    QueryTemplate,
    Templates,
    TokenLimits,
)
from encoders.package.model_package import TOKENIZER_FILE, ModelPackage
from encoders.package_writer import write_package
from encoders.prepared import MeanSource, Prepared
from encoders.prompt.prompts import Prompt
from schemas.ids import MemberId
from tests.kit.data.contexts import history_entry, member_context, post_context
from tests.kit.data.events import post_created
from tests.kit.data.training_events import START, TINY_MODEL, events, feed_of, with_titles
from tests.kit.packages import WORDS, make_tiny_package
from trainer.data.auxiliary_tasks import Part
from trainer.data.pair_batches import draw_pairs
from trainer.data.rendering import PromptTable, TrainingPrompts, token_ids
from trainer.default_prompts import with_default_prompts
from trainer.plan import Plan
from trainer.preparation import _prompts, planned_data, starting_point
from trainer.settings import TrainSettings

TEMPLATES = Templates(
    PostTemplate(("author", "language", "age", "count.like", "rate.click", "text"), "what is it about"),
    MemberTemplate(("headline", "skills", "language"), "what would they read", history_ages=True),
    QueryTemplate("find posts about"),
)
LIMITS = TokenLimits(post=80, member=90)
POSTS = [
    post_context(WORDS[0], post_id="p1", author_id="a1", language="en", counts={"like": 40, "click": 7}),
    post_context(f"{WORDS[1]} <|nearline:text|> äöü 漢字", post_id="p2", author_id="a2", created_at_us=0),
    post_context(" ".join(WORDS * 9), post_id="p3", author_id="a3"),
]
MEMBERS = [
    member_context(
        history_entry("bread", hours_ago=2), history_entry("oven", "wrote"), headline="baker", language="en"
    ),
    member_context(headline="baker", skills=["go", "c"]),
    member_context(*(history_entry(text, hours_ago=number) for number, text in enumerate(WORDS * 5)), headline="d"),
    member_context(history_entry("fog")),
    member_context(history_entry("half \ud800"), headline="d"),
    member_context(language="en"),
]


@pytest.fixture(params=[PromptForm(12), MeanForm(2.0, half_life_s=7200.0)], ids=["prompt", "mean"])
def package(request: pytest.FixtureRequest, tmp_path: Path) -> ModelPackage:
    form: MemberForm = request.param
    return make_tiny_package(tmp_path / "p", layers=1, member_form=form, templates=TEMPLATES, token_limits=LIMITS)


@pytest.fixture
def training(package: ModelPackage) -> TrainingPrompts:
    return TrainingPrompts(package.manifest, package.folder / TOKENIZER_FILE, share_kept=0.5)


def spelled(training: TrainingPrompts, number: int | None) -> Prompt:
    assert number is not None
    ids: Prompt = token_ids(training.table.prompts[number]).tolist()
    return ids


def test_posts_are_rendered_as_in_the_encode_stage(package: ModelPackage, training: TrainingPrompts) -> None:
    served = Encoder.load(package.folder, device="cpu").prepare_posts(POSTS).prompts
    assert [spelled(training, training.post(context)) for context in POSTS] == served
    assert [len(prompt) for prompt in served][2] == LIMITS.post, "cut alike"


def served_parts(prepared: Prepared) -> list[tuple[Prompt, float]]:
    """The prompts that a member's vector is made of in the encode stage, and their weights."""
    (source,) = prepared.sources
    if isinstance(source, MeanSource):
        rows = [row for row in source.texts if isinstance(row, int)]
        return [(prepared.prompts[row], weight) for row, weight in zip(rows, source.weights, strict=True)]
    return [(prepared.prompts[source], 1.0)] if isinstance(source, int) else []


def test_members_are_rendered_as_in_the_encode_stage(package: ModelPackage, training: TrainingPrompts) -> None:
    encoder = Encoder.load(package.folder, device="cpu")
    served = [served_parts(encoder.prepare_members([context])) for context in MEMBERS]
    assert [
        [(spelled(training, number), weight) for number, weight in training.member(context)] for context in MEMBERS
    ] == served
    assert [bool(parts) for parts in served] == [True, True, True, True, False, False]


def _seen(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """What its model is given from now on."""
    seen: list[Prompt] = []
    run = encoder._model.run

    def recorded(prompts: list[Prompt], prefix: Prompt) -> Any:
        seen.extend(prompts)
        return run(prompts, prefix)

    monkeypatch.setattr(encoder._model, "run", recorded)
    return seen


def test_a_query_is_rendered_as_in_the_retriever(
    package: ModelPackage, training: TrainingPrompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load(package.folder, device="cpu")
    seen = _seen(encoder, monkeypatch)
    encoder.encode_text("bread and an oven")
    assert [spelled(training, training.part(POSTS[0], Part("bread and an oven", is_query=True)))] == seen


@pytest.mark.parametrize("instruction", ["", "find posts about"])
def test_a_member_as_prompt_is_trained_beside_queries_as_in_the_retriever(
    instruction: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the training that `nearline train` does by itself, and with an instruction before each query."""
    feed = feed_of(with_titles(events(60)))
    plan = Plan(feed.cut(0.15), 20_000, 0, TrainSettings.model_validate(tomllib.loads(TINY_MODEL)), "default")
    chosen = with_default_prompts(feed, plan).settings
    assert chosen.templates is not None
    with_query = chosen.templates.model_copy(update={"query_instruction": instruction})
    settings = chosen.model_copy(update={"member_form": "prompt", "templates": with_query})
    plan = replace(plan, settings=settings)
    data = planned_data(feed, plan)
    start = starting_point(plan, data, tmp_path)
    package = write_package(tmp_path / "package", start.manifest, start.model, start.tokenizer)
    training = TrainingPrompts(package.manifest, package.folder / TOKENIZER_FILE, share_kept=1.0)
    drawn = draw_pairs(data, training, settings, plan.tokens, plan.seed)
    owners = set(data.auxiliary["search"].owner.tolist())
    looking = {number for pair in drawn.pairs if pair.owner in owners for number, _ in pair.parts}

    encoder = Encoder.load(package.folder, device="cpu")
    seen = _seen(encoder, monkeypatch)
    for _, part in data.parts:
        if part.is_query:
            encoder.encode_text(part.text)
    learned = [spelled(training, number) for number in looking]
    queries = [prompt for prompt in learned if prompt in seen]
    assert 2 * len(queries) == len(learned) > 20, "a title looks for its body, and the body for its title"


def test_a_part_of_a_post_has_all_its_other_fields(package: ModelPackage, training: TrainingPrompts) -> None:
    """As if the post had no more to say. Where the author gives the label, there is none either."""
    known = structs.replace(POSTS[0], author_id=MemberId("m7"))
    for part, alike in (
        (Part("a part"), structs.replace(known, text="a part")),
        (Part("a part", without_author=True), structs.replace(known, text="a part", author_id=MemberId(""))),
    ):
        served = Encoder.load(package.folder, device="cpu").prepare_posts([alike]).prompts
        assert [spelled(training, training.part(known, part))] == served


def test_texts_alone_are_rendered_as_in_the_encode_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of texts alone: whole posts, titles as queries and the bodies of the task search."""
    templates = Templates(PostTemplate(instruction="what is it about"), query=QueryTemplate("find posts about"))
    limits = TokenLimits(post=200, member=90)
    start = make_tiny_package(tmp_path / "start", layers=1, templates=templates, token_limits=limits).folder
    titled = [post_created(f"t{number}", f"{text}\n\n{text} too", at=START) for number, text in enumerate(WORDS)]
    feed = feed_of([post_created("long", " ".join(WORDS * 9), at=START), *titled, *events(30)])
    plan = Plan(feed.cut(0.15), 1_000, 0, TrainSettings(tasks={"search": 1.0}), "texts", start)
    data = planned_data(feed, plan)
    (tmp_path / "work").mkdir()
    prompts = _prompts(starting_point(plan, data, tmp_path / "work"), data, tmp_path / "work", plan.train_tokens)

    encoder = Encoder.load(start, device="cpu")
    served = [prompt for text in data.texts for prompt in encoder.prepare_posts([post_context(text)]).prompts]
    assert prompts[: len(data.texts)] == served
    assert max(map(len, served)) == limits.post, "cut alike"
    seen = _seen(encoder, monkeypatch)
    for _, part in data.parts:
        if part.is_query:
            encoder.encode_text(part.text)
        else:
            encoder.run(encoder.prepare_posts([post_context(part.text)]))
    assert prompts[len(data.texts) :] == seen
    assert {part.is_query for _, part in data.parts} == {True, False}


def test_only_tokens_of_texts_may_be_dropped(package: ModelPackage, training: TrainingPrompts) -> None:
    """What few tokens say stays: special tokens, percentiles, authors, instructions."""
    number = training.post(POSTS[0])
    assert number is not None
    prompt = training.table.prompts[number]
    num_text = len(Encoder.load(package.folder, device="cpu")._prompts.texts([WORDS[0]])[0])  # type: ignore[arg-type]
    num_head = len(training._prompts.texts(["a"])[0]) - 1  # type: ignore[arg-type]
    droppable = (prompt < 0).tolist()
    assert sum(droppable) == num_text - num_head
    assert droppable == sorted(droppable), "the text comes last"
    assert training.table.length(number) == len(prompt) - sum(droppable) + round(0.5 * sum(droppable))


def test_equal_prompts_are_kept_once() -> None:
    table = PromptTable(1.0)
    assert [table.add(prompt) for prompt in ([1, ~5, 2], [3], [1, ~5, 2], [1, 5, 2])] == [0, 1, 0, 2]
    assert [token_ids(prompt).tolist() for prompt in table.prompts] == [[1, 5, 2], [3], [1, 5, 2]]
