"""Has a turn on a device for as long as it lives: `python -m tests.kit.children.device_turn DATA_DIR DEVICE`. Prints
`has a turn` when it does."""

import signal
import sys
from pathlib import Path

from nearline.up.device_turns import DeviceTurns


def main(data_dir: str, device: str) -> None:
    with DeviceTurns(Path(data_dir), device).turn():
        print("has a turn", flush=True)
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
