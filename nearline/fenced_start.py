"""What the embedded broker's process does first: it ends the registration that the broker before it left behind.

`python -m nearline.fenced_start OUTPUT CONTROLLER... -- BROKER...` runs the command CONTROLLER, a node that is a
controller and no broker, until that has fenced the broker of before, and then becomes BROKER: the pid stays the same.

A broker that starts believes the old metadata, in which it still leads every partition, until the controller has
fenced its old registration and let it in again. In between, for a moment, nobody leads. A marker that its transaction
coordinator has to write in that moment is dropped, as if the partition were deleted, and the transaction is called
complete (`TransactionMarkerChannelManager.addTxnMarkersToBrokerQueue`, Kafka 4.3). What the transaction wrote stays
open for good: no consumer reads past it, and the group whose offsets are in it never gets them. With a replica
elsewhere somebody always leads; a node that is alone must be fenced before it starts.
"""

import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nearline import children

_ACTIVE: Final = re.compile("Performing controller activation")
_FENCES: Final = re.compile(r"Fencing broker .*?reaches offset (\d+)", re.DOTALL)
_COMMITTED: Final = re.compile(r"Completing purgatory items up to offset (\d+)")
_ALREADY_S: Final = 2.0
"""A controller that has been active for so long has nothing to fence: the session it waits for is a fraction of it."""
_START_S: Final = 30.0
_STOP_S: Final = 10.0
_LOOK_EVERY_S: Final = 0.05


def main(arguments: Sequence[str]) -> None:
    output, *commands = arguments
    split = commands.index("--")
    fence(commands[:split], Path(output))
    broker = commands[split + 1 :]
    os.execv(broker[0], broker)


def fence(controller: Sequence[str], output: Path) -> None:
    """Returns when the end of the old registration is in the controller's log, and the controller is gone."""
    with output.open("wb") as file:
        process = children.spawn(controller, output=file, dies_with_parent=True)
    try:
        _wait_until_fenced(process, output)
    finally:
        children.stop_all([process], _STOP_S)


def _wait_until_fenced(process: children.Child, output: Path) -> None:
    active_at: float | None = None
    deadline = time.monotonic() + _START_S
    while not _has_fenced(said := output.read_text(errors="replace")):
        now = time.monotonic()
        if active_at is None and _ACTIVE.search(said):
            active_at = now
        if active_at is not None and now > active_at + _ALREADY_S and not _FENCES.search(said):
            return
        if process.poll() is not None or now > deadline:
            sys.exit(f"the controller did not fence the broker of before; what it said is in {output}")
        time.sleep(_LOOK_EVERY_S)


def _has_fenced(said: str) -> bool:
    """True when the record of it is committed: a controller that ends before that has fenced nothing."""
    fences = _FENCES.search(said)
    return fences is not None and any(int(done) >= int(fences[1]) for done in _COMMITTED.findall(said))


if __name__ == "__main__":
    main(sys.argv[1:])
