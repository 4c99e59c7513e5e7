"""What it costs to replace the model of a running instance: how fast the new generation is built, what live posts,
members and the machine's memory notice of it, how fast the way back is, and what is wrong after it was all killed. Real
instances of `nearline up`; models have random weights.

`python -m benchmarks.reindex [--only PART ...] [--quick] [--events F] [--json F]`. Texts come from the posts in F, or
are generated.

PART is one of:
  backfill  posts/s of a backfill against the encoder alone, which has the same two threads
  live      freshness of live posts during a backfill, and without one
  moves     promotions and rollbacks while members ask
  rollback  seconds until every process of the retriever answers from the kept generation
  kills     both generations after a backfill in which a process is killed every 20 s
  memory    of the retriever, with two generations and with one
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.kit.packages import texts
from benchmarks.kit.reindex.backfill import BackfillSizes, backfill
from benchmarks.kit.reindex.instance import Model
from benchmarks.kit.reindex.kills import KillSizes, kills
from benchmarks.kit.reindex.live import LiveSizes, live
from benchmarks.kit.reindex.memory import MemorySizes, memory
from benchmarks.kit.reindex.moves import MoveSizes, moves
from benchmarks.kit.reindex.rollback import RollbackSizes, rollback
from benchmarks.kit.table import Figure, report, shown

_MODEL: Final = Model(256, 6)
_QUICK_MODEL: Final = Model(128, 2)


class Sizes(NamedTuple):
    """Of all parts."""

    backfill: BackfillSizes
    live: LiveSizes
    moves: MoveSizes
    rollback: RollbackSizes
    kills: KillSizes
    memory: MemorySizes


WHOLE: Final = Sizes(
    BackfillSizes(_MODEL, posts=100_000, alone_s=60.0),
    LiveSizes(_MODEL, posts=40_000, seconds=300.0, alone_s=30.0),
    MoveSizes(posts=20_000, members=200, moves=10, pause_s=3.0),
    RollbackSizes(posts=2_000, rounds=5),
    KillSizes(events=20_000, rate=60.0, live_events=400, every_s=20.0),
    MemorySizes(_MODEL, posts=100_000),
)
QUICK: Final = Sizes(
    BackfillSizes(_QUICK_MODEL, posts=2_000, alone_s=2.0),
    LiveSizes(_QUICK_MODEL, posts=4_000, seconds=10.0, alone_s=2.0),
    MoveSizes(posts=300, members=20, moves=2, pause_s=2.0),
    RollbackSizes(posts=100, rounds=1),
    KillSizes(events=600, rate=30.0, live_events=50, every_s=5.0),
    MemorySizes(_QUICK_MODEL, posts=500),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=Sizes._fields, default=Sizes._fields, metavar="PART")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it works, not what it costs")
    parser.add_argument("--events", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sizes, posts = QUICK if arguments.quick else WHOLE, texts(arguments.events)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as temporary:
        parts = _parts(Path(temporary), sizes, posts)
        for name in arguments.only:
            (Path(temporary) / name).mkdir()
            figures += shown(parts[name]())
    return report(figures, arguments.json)


def _parts(folder: Path, sizes: Sizes, posts: list[str]) -> dict[str, Callable[[], list[Figure]]]:
    texts_file = folder / "texts.json"
    texts_file.write_text(json.dumps(posts))
    return {
        "backfill": lambda: backfill(folder / "backfill", sizes.backfill, texts_file, posts),
        "live": lambda: live(folder / "live", sizes.live, texts_file, posts),
        "moves": lambda: moves(folder / "moves", sizes.moves, posts),
        "rollback": lambda: rollback(folder / "rollback", sizes.rollback, posts),
        "kills": lambda: kills(folder / "kills", sizes.kills),
        "memory": lambda: memory(folder / "memory", sizes.memory, posts),
    }


if __name__ == "__main__":
    raise SystemExit(main())
