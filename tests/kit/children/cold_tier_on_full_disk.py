"""A cold tier on a disk that gets full, and then larger: `unshare --user --map-root-user --mount python -m
tests.kit.children.cold_tier_on_full_disk FOLDER`.

It has a mount namespace of its own, which ends with it. The exit status REFUSED means that this system does not
let it mount a disk.
"""

import contextlib
import subprocess
import sys
from pathlib import Path

from indexer.brute_force import BruteColdTier
from schemas.ids import PostId
from tests.kit.children import cold_writer
from tests.kit.data.embeddings import DIMENSION
from tests.kit.tiers import SetClock

REFUSED = 77
MORE_BATCHES = 2


def main(folder: Path) -> int:
    if not _mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)):
        return REFUSED
    durable = _write_until_full(folder / "cold")
    print(f"full after {len(durable)} batches", flush=True)
    assert durable, "nothing fitted: the disk is too small for this test"
    assert _mount("-o", "remount,size=1g", str(folder))
    cold_writer.small_shards()
    plain = BruteColdTier(DIMENSION, SetClock())
    for number in durable:
        plain.write("post", cold_writer.batch(number))
    names = [PostId(f"p{number}") for number in range(cold_writer.NAMES)]
    with contextlib.closing(cold_writer.open_tier(folder / "cold")) as tier:
        for stored, expected in zip(tier.posts(names), plain.posts(names), strict=True):
            assert expected is None or (stored is not None and stored.revision >= expected.revision), expected
        # The batch that did not fit is read again, and the stage goes on.
        for number in range(len(durable), len(durable) + MORE_BATCHES):
            for each in (tier, plain):
                each.write("post", cold_writer.batch(number))
        tier.flush()
        assert tier.posts(names) == plain.posts(names)
    return 0


def _write_until_full(folder: Path) -> list[int]:
    """Numbers of the batches that were durable. The writer ends by itself, by an error or by a signal."""
    command = [sys.executable, "-m", "tests.kit.children.cold_writer", str(folder), "0", "unswept"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    print(f"the writer ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
    return [int(line) for line in done.stdout.splitlines()]


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], stderr=subprocess.DEVNULL, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
