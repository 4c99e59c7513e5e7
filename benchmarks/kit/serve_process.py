"""The retriever's process for the overload benchmark, built as in `nearline up`, but with a fixed hot tier and without
a model. It prints its URL and its gRPC address, and serves on free ports until stdin closes.

`python -m benchmarks.kit.serve_process COLD_SOCKET POSTS HOT DIMENSION NEWEST_US`
"""

import sys
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Never

from benchmarks.kit.vectors import draw
from benchmarks.retrieval import hot_tier, new_retriever
from indexer.cold.socket_client import RemoteColdTier
from nearline.up.process import collect_rarely, share_quickly
from retriever.feed.hot_feed import HotFeed
from retriever.feed.trending_lists import TrendingLists
from retriever.serving import serve
from retriever.settings import ServeSettings
from schemas.ids import Micros


def main() -> None:
    posts, hot_posts, dimension, newest_us = map(int, sys.argv[2:])
    hot = hot_tier(draw(posts, dimension)[-hot_posts:], posts - hot_posts, Micros(newest_us))
    with (
        closing(RemoteColdTier(Path(sys.argv[1]), timeout_s=30)) as cold,
        closing(new_retriever(cold, hot)) as retriever,
    ):
        feed = HotFeed(_not_needed, retriever.generation, hot, TrendingLists(), window_s=1.0)
        stop = Event()
        Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
        collect_rarely()
        share_quickly()
        serve(
            retriever,
            feed,
            _not_needed,
            ServeSettings(port=0),
            on_listening=lambda addresses: print(*addresses, flush=True),
            stop=stop,
        )


def _not_needed() -> Never:
    raise RuntimeError("this benchmark needs no Kafka client and no status")


if __name__ == "__main__":
    main()
