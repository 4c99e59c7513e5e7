"""The cold tier's process for the benchmarks of the retriever. It fills an embedded tier with random posts, prints
"ready", serves the tier on a Unix socket, and applies what stdin says until it closes: `posts FIRST END` for writes
that come in, `member NUMBER REVISION` for a member's new vector (`live_records.py`).

`python -m benchmarks.kit.cold_process FOLDER SOCKET POSTS DIMENSION MEMBERS NEWEST_US`
"""

import sys
import time
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final

from benchmarks.kit.live_records import PARTITIONS, LiveRecords, place
from benchmarks.kit.vectors import draw, member, posts
from indexer.cold.edge.tier import EdgeColdTier
from indexer.cold.socket.server import ColdServer
from indexer.settings import ColdSettings
from indexer.tiers import IndexRecord
from nearline import log
from schemas.ids import Generation, Offset, Partition

_BATCH: Final = 5_000
_LINGER_S: Final = 0.1
"""As the index stage: the records of so much time are written together."""
SPACING_US: Final = 1_000_000
"""Between the times of two posts: a million posts span eleven days."""


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
            Thread(target=_write, args=(tier, live, num_posts, lines), daemon=True).start()
            print("ready", flush=True)
            for line in sys.stdin:
                lines.put(line)


def _fill(tier: EdgeColdTier, num_posts: int, dimension: int, num_members: int, newest_us: int) -> None:
    embeddings = posts(draw(num_posts, dimension), newest_us=newest_us, spacing_us=SPACING_US)
    records: list[IndexRecord] = []
    for number, embedding in enumerate(embeddings):
        records.append(IndexRecord(embedding, *place(number)))
        if len(records) == _BATCH or number == num_posts - 1:
            tier.write("post", records)
            records = []
    members = [member(number, vector) for number, vector in enumerate(draw(num_members, dimension, seed=1))]
    tier.write("member", [IndexRecord(each, *place(number)) for number, each in enumerate(members)])
    tier.flush()
    tier.reached(_all_before(num_posts))


def _write(tier: EdgeColdTier, live: LiveRecords, num_posts: int, lines: "SimpleQueue[str]") -> None:
    """Writes batches as the index stage does: what came in while it lingered, a flush, and then the new position."""
    while True:
        batch = [lines.get()]
        time.sleep(_LINGER_S)
        while not lines.empty():
            batch.append(lines.get())
        posts: list[IndexRecord] = []
        members: list[IndexRecord] = []
        end = 0
        for kind, first, second in map(str.split, batch):
            if kind == "posts":
                posts += [IndexRecord(*record) for record in live.posts(int(first), int(second))]
                end = num_posts + int(second)
            else:
                members.append(IndexRecord(live.member(int(first), int(second)), Partition(0), Offset(0)))
        tier.write("post", posts)
        tier.write("member", members)
        tier.flush()
        if end:
            tier.reached(_all_before(end))


def _all_before(number: int) -> dict[Partition, Offset]:
    return {Partition(partition): Offset(number) for partition in range(PARTITIONS)}


if __name__ == "__main__":
    main()
