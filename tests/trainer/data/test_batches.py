from datetime import timedelta

import numpy as np
import pytest
import torch

from schemas.ids import Micros, PostId
from schemas.times import to_micros
from tests.kit.data.events import activity, member_deleted, post_deleted
from tests.kit.data.training_events import START, events, feed_of
from trainer.data.batches import BatchDrawer, TrainingRows
from trainer.data.dataset import NOBODY, TrainingData, training_data
from trainer.data.feed import Feed
from trainer.errors import BadEvents
from trainer.model.collator import Collator
from trainer.model.false_negatives import OwnedPosts
from trainer.settings import TrainSettings

SETTINGS = TrainSettings(batch_tokens=400, group=4, nearby=6, era=60, negatives=2)


@pytest.fixture(scope="module")
def feed() -> Feed:
    return feed_of(events())


@pytest.fixture(scope="module")
def data(feed: Feed) -> TrainingData:
    return training_data(feed, feed.cut(0.15))


def draw(data: TrainingData) -> tuple[BatchDrawer, TrainingRows, np.ndarray]:
    rows, lengths = TrainingRows(data), np.array([len(text.split()) for text in data.texts])
    return BatchDrawer(data, rows, lengths, SETTINGS), rows, lengths


def test_nothing_of_the_cut_or_later_is_learned_from(feed: Feed, data: TrainingData) -> None:
    assert data.created_us.max() < data.cut_us
    assert data.acted.at_us.max() < data.cut_us
    late = {post.text for post in feed.posts.values() if post.created_at_us >= data.cut_us}
    assert not late & set(data.texts)


def test_nothing_deleted_is_learned_from() -> None:
    deleted = [
        post_deleted("p7", at="2026-01-25T00:00:00Z"),
        member_deleted("m3", at="2026-01-25T00:00:00Z"),
    ]
    before, after = (training_data(feed_of([*events(), *more]), Micros(2**60)) for more in ([], deleted))
    assert len(after.texts) == len(before.texts) - 1
    assert after.counts["members"] == before.counts["members"] - 1


def test_a_batch_holds_no_more_tokens_than_it_may(data: TrainingData) -> None:
    drawn, rows, lengths = draw(data)
    batches = drawn.batches(8_000, seed=1)
    sizes = [int(lengths[np.unique(rows.post[batch])].sum()) for batch in batches]
    assert max(sizes) <= SETTINGS.batch_tokens
    assert np.mean(sizes) > 0.8 * SETTINGS.batch_tokens
    assert 7_600 <= drawn.num_tokens(batches) == sum(sizes) <= 8_000


def test_the_same_seed_draws_the_same_batches(data: TrainingData) -> None:
    drawn, _, _ = draw(data)
    assert drawn.batches(4_000, seed=1) == drawn.batches(4_000, seed=1) != drawn.batches(4_000, seed=2)


def test_groups_are_of_one_owner_and_negatives_are_not_its_own(data: TrainingData) -> None:
    drawn, rows, _ = draw(data)
    for batch in drawn.batches(8_000, seed=3):
        owners = rows.owner[batch]
        sizes = {owner: int((owners == owner).sum()) for owner in np.unique(owners[owners != NOBODY]).tolist()}
        assert 2 <= min(sizes.values()) <= max(sizes.values()) <= SETTINGS.group
        assert 0 < (owners == NOBODY).sum() <= SETTINGS.negatives * len(sizes)
        spread = np.quantile(data.created_us[rows.post[batch]], (0.05, 0.95))
        assert spread[1] - spread[0] < 0.6 * (data.created_us.max() - data.created_us.min()), "one era"


def test_what_was_shown_and_not_acted_on_is_a_negative() -> None:
    shown = [activity("m1", f"p{number}", "impression", at=START.replace(month=2)) for number in (3, 5)]
    only_m1 = [event for event in events() if event.get("member_id", "m1") == "m1"]
    acted = {event["post_id"] for event in only_m1 if event["type"] == "activity"}
    assert not {"p3", "p5"} & acted
    others = [activity("m2", f"p{number}", "like", at=START.replace(month=2)) for number in (300, 301)]
    data = training_data(feed_of([*only_m1, *shown, *others]), Micros(2**60))
    (owner,) = data.shown
    assert {data.texts[post] for post in data.shown[owner].post} == {
        event["text"] for event in only_m1 if event.get("post_id") in {"p3", "p5"} and "text" in event
    }


def test_what_is_held_out_does_not_decide_what_is_a_negative() -> None:
    """The member was shown the post before the cut, and acts on it after: until then nobody knew that."""
    shown = activity("m1", "p3", "impression", at=START + timedelta(days=10))
    acted = activity("m1", "p3", "like", at=START + timedelta(days=30))
    recorded = [event for event in events() if (event.get("member_id"), event.get("post_id")) != ("m1", "p3")]
    feed = feed_of([*recorded, shown, acted])
    data = training_data(feed, to_micros(START + timedelta(days=20)))
    (number,) = [number for number, text in enumerate(data.texts) if text == feed.posts[PostId("p3")].text]
    assert [number] in [shown_to.post.tolist() for shown_to in data.shown.values()]


def test_a_members_own_posts_are_told_from_all_others(data: TrainingData) -> None:
    drawn, rows, _ = draw(data)
    owned = OwnedPosts(data.owned)
    for batch in drawn.batches(4_000, seed=4):
        owners, posts = rows.owner[batch], rows.post[batch]
        is_own = owned(torch.from_numpy(owners), torch.from_numpy(posts))
        for row, owner in enumerate(owners.tolist()):
            assert is_own[row].tolist() == [owner != NOBODY and post in data.owned[owner] for post in posts.tolist()]


def test_a_post_that_is_in_a_batch_twice_is_encoded_once() -> None:
    prompts = [[1] * (2 + number) for number in range(4)]
    batch = Collator(prompts)([{"post": 3, "owner": 0}, {"post": 1, "owner": 0}, {"post": 3, "owner": 1}])
    assert batch["post_lengths"] == [[5, 3]]
    assert batch["post_order"].tolist() == [0, 1, 0]
    assert (batch["post_number"].tolist(), batch["label"].tolist()) == ([3, 1, 3], [0, 0, 1])


def test_tokens_are_dropped_by_seed_and_batch() -> None:
    """So a training that goes on drops the same. A text's first token says what it is, and stays."""
    prompts = [[post, *range(1_000, 1_200)] for post in range(4)]

    def seen(seed: int, *posts: int, dropout: float = 0.25) -> list[int]:
        collator = Collator(prompts, token_dropout=dropout, seed=seed)
        batch = collator([{"post": post, "owner": 0} for post in posts])
        tokens: list[int] = torch.cat(batch["post_input_ids"]).tolist()
        return tokens

    once = seen(1, 0, 1, 2)
    assert once == seen(1, 0, 1, 2) == seen(1, 2, 1, 0)
    assert sorted(token for token in once if token < 4) == [0, 1, 2]
    assert 400 < len(once) < 500
    assert once != seen(2, 0, 1, 2)
    assert once[:100] != seen(1, 0, 1, 3)[:100], "others each time"
    assert seen(1, 0, 1, dropout=0.0) == [*prompts[0], *prompts[1]]


def test_too_little_to_learn_from_is_refused(feed: Feed) -> None:
    with pytest.raises(BadEvents, match="no positive action before"):
        training_data(feed, Micros(0))
    one_member = [event for event in events() if event.get("member_id", "m1") == "m1"]
    with pytest.raises(BadEvents, match="events of more members"):
        training_data(feed_of(one_member), Micros(2**60))
