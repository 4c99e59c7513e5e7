"""The feeds of a generation as one, before they have begun to read."""

from typing import Never

from nearline.up.feeds import Feeds
from retriever.feed.end_watch import EndWatch
from retriever.feed.hot_feed import HotFeed
from retriever.feed.index_position import IndexPosition
from retriever.feed.member_feed import MemberFeed, MemberFeedFigures
from tests.kit.data.embeddings import GENERATION
from tests.kit.retrievers import WINDOW_S, RetrieverSetup


def test_their_figures_and_progress_are_those_of_both() -> None:
    retriever = RetrieverSetup(warm=False)
    watch = EndWatch("the member feed", WINDOW_S)
    hot = HotFeed(_no_consumer, GENERATION, retriever.hot, retriever.trending, window_s=WINDOW_S)
    members = MemberFeed(_no_consumer, GENERATION, retriever.members, watch, dict, window_s=WINDOW_S)
    feeds = Feeds(IndexPosition(_no_consumer, GENERATION), hot, retriever.members, members)
    watch.ask(lambda: {("t", 0): 3})
    (figures,) = feeds.figures()
    assert (figures.generation, figures.members) == (GENERATION, MemberFeedFigures({}, 3, 0))
    assert feeds.progress() == hot.progress()
    retriever.close()


def _no_consumer() -> Never:
    raise AssertionError("the feeds are not started in this test")
