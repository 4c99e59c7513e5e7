"""The retriever's process as it was, with a full hot tier and without a model. Prints its URL and applies what stdin
says until it closes: `posts FIRST END` for writes that come in. It keeps no members, so it skips the lines about them.

`python -m benchmarks.kit.before.serve_process COLD_SOCKET POSTS HOT DIMENSION MEMBERS NEWEST_US`
"""

import sys
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Never

from benchmarks.kit.live_records import LiveRecords
from benchmarks.kit.vectors import draw
from benchmarks.retrieval import hot_tier, new_retriever
from indexer.cold.socket_client import RemoteColdTier
from indexer.hot.tier import MatrixHotTier
from nearline import log
from nearline.up.process import collect_rarely, share_quickly
from retriever.feed.hot_feed import HotFeed
from retriever.feed.trending_lists import TrendingLists
from retriever.http.app import create_app
from retriever.http.server import serve
from retriever.settings import ServeSettings
from schemas.ids import Micros


def main() -> None:
    log.configure("serve", "warning")
    num_posts, num_hot, dimension, _, newest_us = map(int, sys.argv[2:])
    hot = hot_tier(draw(num_posts, dimension)[-num_hot:], num_posts - num_hot, Micros(newest_us))
    live = LiveRecords(num_posts, dimension, newest_us)
    with (
        closing(RemoteColdTier(Path(sys.argv[1]), timeout_s=30)) as cold,
        closing(new_retriever(cold, hot)) as retriever,
    ):
        feed = HotFeed(_not_needed, retriever.generation, hot, TrendingLists(), window_s=1.0)
        app = create_app(retriever, feed, _not_needed, ServeSettings())
        stop = Event()
        Thread(target=_apply, args=(hot, live, stop), daemon=True).start()
        collect_rarely()
        share_quickly()
        serve(app, "127.0.0.1", 0, lambda url: print(url, flush=True), stop)


def _apply(hot: MatrixHotTier, live: LiveRecords, stop: Event) -> None:
    """As the hot feed does. Sets `stop` when stdin is closed."""
    for kind, first, second in map(str.split, sys.stdin):
        if kind == "posts":
            hot.upsert([embedding for embedding, _, _ in live.posts(int(first), int(second))])
    stop.set()


def _not_needed() -> Never:
    raise RuntimeError("this benchmark needs no Kafka client and no status")


if __name__ == "__main__":
    main()
