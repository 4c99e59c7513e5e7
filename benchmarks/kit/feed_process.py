"""The hot feed in a process of its own, as `serve` runs it. It prints "loaded" when its code is loaded. After a line on
stdin it prints how many posts the hot tier holds once the feed has caught up, and after a second line "saved" when a
snapshot is on disk. It ends when stdin closes.

`python -m benchmarks.kit.feed_process BROKERS DATA_DIR CAPACITY DIMENSION`
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from msgspec import UNSET

from benchmarks.kit.waiting import until
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from nearline import log
from nearline.settings.settings import Settings
from nearline.up.feeds import new_feeds
from nearline.up.process import collect_rarely, share_quickly
from retriever.feed.trending_lists import TrendingLists
from schemas.ids import Generation
from streams.settings import KafkaSettings

_ASK_EVERY_S: Final = 0.01
_SNAPSHOT: Final = "hot.snapshot"
"""The name that the hot tier gives to a whole snapshot."""


def main() -> None:
    log.configure("serve", "warning")
    brokers, data_dir = sys.argv[1], Path(sys.argv[2])
    capacity, dimension = map(int, sys.argv[3:])
    settings = Settings(
        data_dir=data_dir,
        kafka=KafkaSettings(bootstrap_servers=brokers),
        hot=HotSettings(capacity=capacity, device="cpu"),
    )
    # The feeds want to know no more of the model package.
    manifest = SimpleNamespace(member_vectors=UNSET)
    package: Any = SimpleNamespace(generation=Generation("benchmark"), dimension=dimension, manifest=manifest)
    collect_rarely()
    share_quickly()
    print("loaded", flush=True)
    sys.stdin.readline()
    hot = MatrixHotTier(dimension, settings.hot, IdTable())
    feeds = new_feeds(settings, package, hot, TrendingLists(), writes_snapshots=True)
    with feeds.running():
        until(lambda: feeds.hot.problem is None, "the feed to catch up", _ASK_EVERY_S)
        print(hot.count(), flush=True)
        sys.stdin.readline()
        until(lambda: any((data_dir / "hot").rglob(_SNAPSHOT)), "a snapshot", _ASK_EVERY_S)
        print("saved", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
