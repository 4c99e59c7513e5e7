"""The cold tier's process for the benchmarks of the retriever. It fills an embedded tier with random posts, prints
"ready", and serves the tier on a Unix socket until stdin closes.

`python -m benchmarks.kit.cold_process FOLDER SOCKET POSTS DIMENSION QUERIES NEWEST_US`
"""

import sys
from contextlib import closing
from pathlib import Path

from benchmarks.kit.vectors import draw, member, posts
from indexer.cold.edge_tier import EdgeColdTier
from indexer.cold.socket_server import ColdServer
from indexer.settings import ColdSettings
from indexer.tiers import IndexRecord
from schemas.ids import Generation, Offset, Partition

_BATCH = 5_000
SPACING_US = 1_000_000
"""Between the times of two posts: a million posts span eleven days."""


def main() -> None:
    folder, socket = Path(sys.argv[1]), Path(sys.argv[2])
    count, dimension, queries, newest_us = map(int, sys.argv[3:])
    with closing(EdgeColdTier(folder, Generation("benchmark"), dimension, ColdSettings())) as tier:
        records: list[IndexRecord] = []
        for number, embedding in enumerate(posts(draw(count, dimension), newest_us=newest_us, spacing_us=SPACING_US)):
            records.append(IndexRecord(embedding, Partition(number % 8), Offset(number)))
            if len(records) == _BATCH or number == count - 1:
                tier.write("post", records)
                records = []
        members = [member(number, vector) for number, vector in enumerate(draw(queries, dimension, seed=1))]
        tier.write(
            "member", [IndexRecord(embedding, Partition(0), Offset(number)) for number, embedding in enumerate(members)]
        )
        tier.flush()
        with closing(ColdServer(tier, socket)) as server:
            server.start()
            print("ready", flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    main()
