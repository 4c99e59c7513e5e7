"""The retriever's process for the benchmarks of the service, built as in `nearline up`, but with a full hot tier, all
members, no broker and no model. It prints its URL and its gRPC address, serves on free ports, and applies what stdin
says until it closes: `posts FIRST END` for writes that come in, `member NUMBER REVISION` for a member's new vector
(`live_records.py`).

`python -m benchmarks.kit.serve_process COLD_SOCKET POSTS HOT DIMENSION MEMBERS NEWEST_US`
"""

import itertools
import sys
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Final, Never

from benchmarks.kit.live_records import LiveRecords, place
from benchmarks.kit.tiers import filled_hot_tier, filled_member_store, new_retriever
from benchmarks.kit.vectors import draw
from indexer.cold.socket.client import RemoteColdTier
from indexer.id_table import IdTable
from indexer.tiers import HotRecord, HotTier, IndexRecord
from nearline import log
from nearline.up.process import collect_rarely, share_quickly
from retriever.feed.hot_feed import HotFeed
from retriever.feed.member_store import MemberStore
from retriever.feed.trending_lists import TrendingLists
from retriever.serving import serve
from retriever.settings import ServeSettings
from schemas.ids import Micros
from schemas.times import now_us
from streams.kafka.periodic import repeating

_TIDY_EVERY_S: Final = 1.0
_EXPIRE_EVERY_US: Final = 1_000_000


def main() -> None:
    log.configure("serve", "warning")
    num_posts, num_hot, dimension, num_members, newest_us = map(int, sys.argv[2:])
    ids = IdTable()
    hot = filled_hot_tier(draw(num_posts, dimension)[-num_hot:], num_posts - num_hot, Micros(newest_us), ids)
    members = filled_member_store(num_members, dimension)
    live = LiveRecords(num_posts, dimension, newest_us)
    with (
        closing(RemoteColdTier(Path(sys.argv[1]), timeout_s=30)) as cold,
        closing(new_retriever(dimension, cold, hot, ids, members)) as retriever,
        repeating("tidying", _TIDY_EVERY_S, retriever.tidy),
    ):
        feed = HotFeed(_not_needed, retriever.generation, hot, TrendingLists(), window_s=1.0)
        stop = Event()
        Thread(target=_apply, args=(hot, members, live, num_members, stop), daemon=True).start()
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


def _apply(hot: HotTier, members: MemberStore, live: LiveRecords, num_members: int, stop: Event) -> None:
    """As the feeds do. Sets `stop` when stdin is closed."""
    numbers = itertools.count(num_members)
    expire_at_us = 0
    for kind, first, second in map(str.split, sys.stdin):
        if kind == "posts":
            now = now_us()
            hot.apply([HotRecord(*record, now) for record in live.posts(int(first), int(second))])
            if now >= expire_at_us:
                hot.expire(now)
                expire_at_us = now + _EXPIRE_EVERY_US
        else:
            members.apply([IndexRecord(live.member(int(first), int(second)), *place(next(numbers)))])
    stop.set()


def _not_needed() -> Never:
    raise RuntimeError("this benchmark needs no Kafka client and no status")


if __name__ == "__main__":
    main()
