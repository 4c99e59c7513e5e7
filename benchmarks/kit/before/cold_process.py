"""The cold tier's process as it was. Fills an embedded tier, prints "ready", and applies what stdin says until it
closes: `posts FIRST END` for writes that come in, `member NUMBER REVISION` for a member's new vector.

`python -m benchmarks.kit.before.cold_process FOLDER SOCKET POSTS DIMENSION MEMBERS NEWEST_US`
"""

import sys
import time
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from benchmarks.kit.live_records import LiveRecords
from benchmarks.kit.vectors import draw, member, posts
from indexer.cold.edge_tier import EdgeColdTier
from indexer.cold.socket_server import ColdServer
from indexer.settings import ColdSettings
from indexer.tiers import IndexRecord
from nearline import log
from schemas.ids import Generation, Offset, Partition

_BATCH = 5_000
_SPACING_US = 1_000_000
_LINGER_S = 0.1
"""As the index stage: the records of so much time are written together."""


def main() -> None:
    log.configure("cold", "warning")
    folder, socket = Path(sys.argv[1]), Path(sys.argv[2])
    num_posts, dimension, num_members, newest_us = map(int, sys.argv[3:])
    live = LiveRecords(num_posts, dimension, newest_us)
    with closing(EdgeColdTier(folder, Generation("benchmark"), dimension, ColdSettings())) as tier:
        _fill(tier, num_posts, dimension, num_members, newest_us)
        with closing(ColdServer(tier, socket)) as server:
            server.start()
            lines: SimpleQueue[str] = SimpleQueue()
            Thread(target=_write, args=(tier, live, lines), daemon=True).start()
            print("ready", flush=True)
            for line in sys.stdin:
                lines.put(line)


def _fill(tier: EdgeColdTier, num_posts: int, dimension: int, num_members: int, newest_us: int) -> None:
    embeddings = posts(draw(num_posts, dimension), newest_us=newest_us, spacing_us=_SPACING_US)
    records: list[IndexRecord] = []
    for number, embedding in enumerate(embeddings):
        records.append(IndexRecord(embedding, Partition(number % 8), Offset(number)))
        if len(records) == _BATCH or number == num_posts - 1:
            tier.write("post", records)
            records = []
    members = [member(number, vector) for number, vector in enumerate(draw(num_members, dimension, seed=1))]
    tier.write("member", [IndexRecord(each, Partition(0), Offset(number)) for number, each in enumerate(members)])
    tier.flush()


def _write(tier: EdgeColdTier, live: LiveRecords, lines: "SimpleQueue[str]") -> None:
    """Writes batches as the index stage does: what came in while it lingered, then a flush."""
    while True:
        batch = [lines.get()]
        time.sleep(_LINGER_S)
        while not lines.empty():
            batch.append(lines.get())
        posts: list[IndexRecord] = []
        members: list[IndexRecord] = []
        for kind, first, second in map(str.split, batch):
            if kind == "posts":
                posts += [IndexRecord(*record) for record in live.posts(int(first), int(second))]
            else:
                members.append(IndexRecord(live.member(int(first), int(second)), Partition(0), Offset(int(second))))
        tier.write("post", posts)
        tier.write("member", members)
        tier.flush()


if __name__ == "__main__":
    main()
