from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from schemas.contexts import PostContext
from schemas.ids import MemberId, Micros
from tests.kit.data.contexts import HOUR_US, post_context
from tests.kit.data.training_events import events, feed_of
from trainer.data.auxiliary_tasks import TaskName, task_rows
from trainer.data.batches import BatchDrawer, TrainingRows
from trainer.data.dataset import TrainingData, training_data
from trainer.data.feed import Feed
from trainer.errors import BadEvents
from trainer.settings import TrainSettings
from trainer.training import Plan, prepare, starting_point

SETTINGS = TrainSettings(
    hidden=32, layers=1, vocabulary=500, dimensions=(32,), batch_tokens=512, era=100, checkpoint_steps=100
)


@pytest.fixture(scope="module")
def feed() -> Feed:
    """A title and its body share a name, one of 26, that members do not care about."""
    return feed_of(_titled(event) for event in events())


def _titled(event: dict[str, Any]) -> dict[str, Any]:
    if "text" not in event:
        return event
    words, name = event["text"].split(), f"q{chr(ord('a') + int(event['post_id'][1:]) % 26)}"
    title, body = " ".join(words[:3]), " ".join(words[3:])
    return {**event, "text": f"{event['author_id'][:2]}: {name} {title}\n\n{name} {body}"}


def post(text: str, author: str = "m", hours: float = 0) -> PostContext:
    return post_context(text, author_id=MemberId(author), created_at_us=Micros(int(hours * HOUR_US)))


def rows(name: TaskName, *posts: PostContext) -> list[tuple[int, str, str]]:
    """Which post, by what label, and what is encoded of it."""
    return [(row.post, row.owner, row.part.text) for row in task_rows(name, posts)]


def test_a_title_belongs_to_its_body_which_does_not_say_it_again() -> None:
    texts = "net: fix\n\nIt was wrong: net: fix it.\n", "one line alone", "", "the same\nthe same"
    assert rows("search", *map(post, texts)) == [(0, "net: fix", "net: fix"), (0, "net: fix", "It was wrong:   it.")]
    assert rows("search", post("a\nan apple a day"))[1][2] == "an apple   day", "whole words"
    assert [row.part.is_query for row in task_rows("search", [post(texts[0])])] == [True, False]


def test_what_gives_the_label_is_taken_out_of_the_text() -> None:
    texts = ("Net: phy: add a driver", "net: fix\nnot: this", "see http://a.b at 10:30", "I bake #Bread and #cake: now")
    posts = [*map(post, texts)]
    assert rows("interest", *posts) == [(0, "net", "phy: add a driver"), (1, "net", "fix\nnot: this")]
    assert rows("tag", *posts) == [
        (0, "net: phy", "add a driver"), (1, "net", "fix\nnot: this"),
        (3, "bread", "I bake   and  : now"), (3, "cake", "I bake   and  : now"),
    ]  # fmt: skip


def test_a_story_is_what_one_author_wrote_within_a_day_of_its_beginning() -> None:
    posts = [
        post("net: a", "ann", 0),
        post("net: b", "bob", 1),
        post("Net: c", "ann", 24),
        post("net: phy: d", "ann", 24),
    ]
    posts += [post("net: e", "ann", 25), post("no prefix", "ann", 25)]
    found = [*task_rows("storyline", posts)]
    owners = [row.owner for row in found]
    assert [row.part.text for row in found] == ["a", "b", "c", "d", "e"]
    assert all(row.part.without_author for row in found)
    assert [owners.index(owner) for owner in owners] == [0, 1, 0, 3, 4], "the third goes with the first, no other does"


def draw(feed: Feed, settings: TrainSettings) -> tuple[BatchDrawer, TrainingRows, TrainingData]:
    data = training_data(feed, feed.cut(0.15), settings.tasks)
    lengths = np.array([len(text.split()) for text in [*data.texts, *(part.text for _, part in data.parts)]])
    rows = TrainingRows(data)
    return BatchDrawer(data, rows, lengths, settings), rows, data


def test_a_weight_is_a_share_of_the_tokens_and_a_batch_is_of_one_task(feed: Feed) -> None:
    drawn, rows, data = draw(feed, SETTINGS.model_copy(update={"tasks": {"search": 0.5, "interest": 1.0}}))
    batches = drawn.batches(40_000, seed=0)
    firsts = list(rows.first_auxiliary.values())
    kinds = [np.unique(np.searchsorted(firsts, batch, side="right")).tolist() for batch in batches]
    assert {len(kind) for kind in kinds} == {1}
    of_kind = [
        [batch for batch, kind in zip(batches, kinds, strict=True) if kind == [kind_number]] for kind_number in range(3)
    ]
    shares = np.array([drawn.num_tokens(batches_of_kind) for batches_of_kind in of_kind]) / 40_000
    assert np.allclose(shares, [0.4, 0.2, 0.4], atol=0.03)
    assert {kind for (kind,) in kinds[:10]} == {0, 1, 2}, "mixed"
    titles = of_kind[1][0]
    assert (rows.post[titles] >= len(data.texts)).all(), "parts of posts"
    assert min(np.unique(rows.owner[titles], return_counts=True)[1]) >= 2


def test_without_auxiliary_tasks_the_batches_are_those_of_the_main_task_alone(feed: Feed) -> None:
    none, _, _ = draw(feed, SETTINGS)
    one, rows, _ = draw(feed, SETTINGS.model_copy(update={"tasks": {"tag": 1e-6}}))
    found = [batch for batch in one.batches(20_000, seed=0) if max(batch) < rows.first_auxiliary["tag"]]
    assert found == none.batches(20_000, seed=0)


def test_without_the_main_task_only_the_others_are_learned(feed: Feed) -> None:
    drawn, rows, _ = draw(feed, SETTINGS.model_copy(update={"main": 0.0, "tasks": {"interest": 1.0, "tag": 3.0}}))
    batches = drawn.batches(40_000, seed=0)
    assert min(min(batch) for batch in batches) >= min(rows.first_auxiliary.values())
    assert drawn.num_tokens(batches) == pytest.approx(40_000, rel=0.05)


def loss_of_titles(feed: Feed, tasks: dict[str, float], folder: Path) -> float:
    """After training with these tasks: of titles that look for their bodies."""
    settings = TrainSettings.model_validate({**SETTINGS.model_dump(), "tasks": tasks})
    plan = Plan(feed.cut(0.15), 8_000, 0, settings, "tasks")
    data = training_data(feed, plan.cut_us, ("search",))
    titles = data.auxiliary["search"]
    folder.mkdir()
    start = starting_point(plan, data, folder)
    prepared = prepare(start, data._replace(auxiliary=dict.fromkeys(settings.tasks, titles)), plan, folder)
    prepared.trainer.train()
    rows = [{"post": post, "owner": owner} for post, owner in zip(titles.post[:200], titles.owner[:200], strict=True)]
    with torch.no_grad():
        trainer = prepared.trainer
        loss: torch.Tensor = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    return float(loss)


def test_a_task_teaches_what_it_asks_for_and_more_with_more_weight(feed: Feed, tmp_path: Path) -> None:
    weights: list[dict[str, float]] = [{}, {"search": 0.25}, {"search": 2.0}]
    none, some, much = (loss_of_titles(feed, one, tmp_path / str(number)) for number, one in enumerate(weights))
    assert none > some > much


def test_a_task_that_the_posts_have_nothing_for_is_refused() -> None:
    with pytest.raises(BadEvents, match="too little for the task search; take it out"):
        training_data(feed_of(events()), Micros(2**60), ("search",))


def test_the_record_of_a_training_says_its_tasks(feed: Feed) -> None:
    settings = SETTINGS.model_copy(update={"tasks": {"interest": 0.5}})
    plan = Plan(feed.cut(0.15), 3_000, 0, settings, "tasks")
    record = plan.record(training_data(feed, plan.cut_us, settings.tasks))
    assert record["settings"]["tasks"] == {"interest": 0.5}
