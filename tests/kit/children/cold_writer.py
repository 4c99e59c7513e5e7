"""Writes the same batches at every start, from FIRST_BATCH on, and prints the number of each durable batch. Made to be
killed.

python -m tests.kit.children.cold_writer FOLDER FIRST_BATCH [unswept]. With `unswept` its folder grows without end.
"""

import random
import sys
from itertools import count
from pathlib import Path

from indexer.cold.edge import shards
from indexer.cold.edge.tier import EdgeColdTier
from indexer.settings import ColdSettings
from indexer.tiers import IndexRecord
from schemas.embeddings import Embedding
from schemas.ids import Micros
from tests.kit.data.embeddings import DIMENSION, GENERATION, index_records, post_embedding
from tests.kit.tiers import SetClock

BATCH = 40
NAMES = 300


def batch(number: int) -> list[IndexRecord]:
    """Records of the topic: updates and deletes of a few posts, with growing revisions."""
    rng = random.Random(number)
    embeddings: list[Embedding] = []
    for at in range(BATCH):
        name = f"p{rng.randrange(NAMES)}"
        revision = number * BATCH + at + 1
        embeddings.append(
            post_embedding(name, revision, deleted=True) if rng.random() < 0.2 else post_embedding(name, revision)
        )
    return index_records(*embeddings, first=number * BATCH)


def small_shards() -> None:
    """Gives a small test several shards, and builds segments all the time."""
    shards.SHARD_POINTS = 64
    shards._BUILD_AFTER_POINTS = 100
    shards._MIN_BUILT_POINTS = 10


def open_tier(folder: Path) -> EdgeColdTier:
    """A tier whose sweeps rewrite shards at once."""
    return EdgeColdTier(folder, GENERATION, DIMENSION, ColdSettings(), SetClock(), erase_within_s=0)


def main() -> None:
    small_shards()
    tier, swept = open_tier(Path(sys.argv[1])), sys.argv[3:] != ["unswept"]
    for number in count(int(sys.argv[2])):
        tier.write("post", batch(number))
        tier.flush()
        if swept:
            tier.sweep(Micros(0))
        print(number, flush=True)


if __name__ == "__main__":
    main()
