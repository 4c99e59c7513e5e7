from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from schemas.ids import Micros
from tests.kit.data.training_events import events, feed_of
from trainer.data.auxiliary_tasks import TaskName, TaskRow, task_rows
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


def rows(name: TaskName, *texts: str) -> list[TaskRow]:
    return list(task_rows(name, texts))


def test_a_title_belongs_to_its_body() -> None:
    pairs = rows("title_body", "net: fix\n\nIt was wrong.\n", "one line alone", "")
    assert pairs == [TaskRow(0, "net: fix", "net: fix"), TaskRow(0, "net: fix", "It was wrong.")]


def test_subjects_and_tags_are_read_from_the_first_line_and_from_hashtags() -> None:
    texts = ("Net: phy: add a driver", "net: fix\nnot: this", "see http://a.b at 10:30", "I bake #Bread and #cake: now")
    assert rows("same_subject", *texts) == [TaskRow(0, "net"), TaskRow(1, "net")]
    assert rows("same_tag", *texts) == [
        TaskRow(0, "net: phy"), TaskRow(1, "net"), TaskRow(3, "bread"), TaskRow(3, "cake"),
    ]  # fmt: skip


def draw(feed: Feed, settings: TrainSettings) -> tuple[BatchDrawer, TrainingRows, TrainingData]:
    data = training_data(feed, feed.cut(0.15), settings.tasks)
    lengths = np.array([len(text.split()) for text in [*data.texts, *data.parts]])
    rows = TrainingRows(data)
    return BatchDrawer(data, rows, lengths, settings), rows, data


def test_a_weight_is_a_share_of_the_tokens_and_a_batch_is_of_one_task(feed: Feed) -> None:
    drawn, rows, data = draw(feed, SETTINGS.model_copy(update={"tasks": {"title_body": 0.5, "same_subject": 1.0}}))
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
    one, rows, _ = draw(feed, SETTINGS.model_copy(update={"tasks": {"same_tag": 1e-6}}))
    found = [batch for batch in one.batches(20_000, seed=0) if max(batch) < rows.first_auxiliary["same_tag"]]
    assert found == none.batches(20_000, seed=0)


def loss_of_titles(feed: Feed, tasks: dict[str, float], folder: Path) -> float:
    """After training with these tasks: of titles that look for their bodies."""
    settings = TrainSettings.model_validate({**SETTINGS.model_dump(), "tasks": tasks})
    plan = Plan(feed.cut(0.15), 8_000, 0, settings, "tasks")
    data = training_data(feed, plan.cut_us, ("title_body",))
    titles = data.auxiliary["title_body"]
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
    weights: list[dict[str, float]] = [{}, {"title_body": 0.25}, {"title_body": 2.0}]
    none, some, much = (loss_of_titles(feed, one, tmp_path / str(number)) for number, one in enumerate(weights))
    assert none > some > much


def test_a_task_that_the_posts_have_nothing_for_is_refused() -> None:
    with pytest.raises(BadEvents, match="too little for the task title_body; take it out"):
        training_data(feed_of(events()), Micros(2**60), ("title_body",))


def test_the_record_of_a_training_says_its_tasks(feed: Feed) -> None:
    settings = SETTINGS.model_copy(update={"tasks": {"same_subject": 0.5}})
    plan = Plan(feed.cut(0.15), 3_000, 0, settings, "tasks")
    record = plan.record(training_data(feed, plan.cut_us, settings.tasks))
    assert record["settings"]["tasks"] == {"same_subject": 0.5}
