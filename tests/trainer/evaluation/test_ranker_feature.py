from pathlib import Path

import numpy as np
import pytest

from tests.kit.data.events import activity, post_created
from tests.kit.data.training_events import START, events, feed_of, with_impressions
from tests.kit.packages import make_tiny_package
from trainer.evaluation.ranker_feature import held_out_impressions, ranker_gain


def test_the_cosine_raises_the_auc_of_a_ranker_of_popularity_and_author(tmp_path: Path) -> None:
    feed = feed_of(with_impressions(events()))
    gain = ranker_gain(feed, feed.cut(0.3), make_tiny_package(tmp_path / "tiny", layers=1))
    assert gain is not None
    assert gain.impressions > 100
    assert gain.auc_with > gain.auc_without + 0.1
    assert gain.share_better >= 0.95


def test_without_impressions_there_is_no_gain(tmp_path: Path) -> None:
    feed = feed_of(events(100))
    assert ranker_gain(feed, feed.cut(0.3), make_tiny_package(tmp_path / "tiny", layers=1)) is None


def test_an_impression_knows_what_was_done_before_it_and_nothing_later() -> None:
    at = [START.replace(minute=minute) for minute in range(10)]
    feed = feed_of(
        [
            post_created("p1", author_id="a", at=at[0]),
            post_created("p2", author_id="a", at=at[6]),
            activity("x", "p1", at=at[1]),
            activity("early", "p1", "impression", at=at[2]),
            activity("m", "p1", "impression", at=at[4]),
            activity("m", "p1", at=at[5]),
            activity("m", "p1", "impression", at=at[6]),
            activity("n", "p1", "impression", at=at[7]),
            activity("n", "p2", "impression", at=at[7]),
            activity("x", "p1", "impression", at=at[8]),
        ]
    )
    shown = held_out_impressions(feed, feed.events[3].at_us)
    assert list(zip(shown.members, shown.posts, strict=True)) == [("m", "p1"), ("n", "p1"), ("n", "p2")]
    assert shown.acted_I.tolist() == [True, False, False]
    assert np.expm1(shown.known_IF) == pytest.approx(np.array([[1, 1], [2, 1], [0, 1]]))
