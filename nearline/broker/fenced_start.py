"""What the embedded broker's process does first: it ends the registration that the broker before it left behind.

`python -m nearline.broker.fenced_start OUTPUT PORT CONTROLLER... -- BROKER...` runs the command CONTROLLER, a node
that is a controller and no broker and listens at PORT, until that says that it has fenced the broker of before. Then it
becomes BROKER: the pid stays the same.

A broker that starts believes the old metadata, in which it still leads every partition, until the controller has
fenced its old registration and let it in again. In between, for a moment, nobody leads. A marker that its transaction
coordinator has to write in that moment is dropped, as if the partition were deleted, and the transaction is called
complete (`TransactionMarkerChannelManager.addTxnMarkersToBrokerQueue`, Kafka 4.3). What the transaction wrote stays
open for good: no consumer reads past it, and the group whose offsets are in it never gets them. With a replica
elsewhere somebody always leads; a node that is alone must be fenced before it starts.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nearline import children

_STOP_S: Final = 10.0
_ASK_EVERY_S: Final = 0.05
_SAY_EVERY_S: Final = 10.0


def main(arguments: Sequence[str]) -> None:
    output, port, *commands = arguments
    split = commands.index("--")
    fence(commands[:split], int(port), Path(output))
    broker = commands[split + 1 :]
    os.execv(broker[0], broker)


def fence(controller: Sequence[str], port: int, output: Path) -> None:
    """Returns when the end of the old registration is in the controller's log, and the controller is gone."""
    with output.open("wb") as file:
        process = children.spawn(controller, output=file, dies_with_parent=True)
    try:
        wait_until_fenced(process, port, output)
    finally:
        children.stop_all([process], _STOP_S)


def wait_until_fenced(controller: children.Child, port: int, output: Path, say_every_s: float = _SAY_EVERY_S) -> None:
    """Waits for the controller's word as long as it runs, and says so now and then. Exits when the controller ends."""
    said_at = time.monotonic()
    while (doubt := _doubt(port)) is not None or controller.poll() is not None:
        if controller.poll() is not None:
            sys.exit(f"the controller did not fence the broker of before; what it said is in {output}")
        if time.monotonic() > said_at + say_every_s:
            said_at = time.monotonic()
            print(f"waiting for the controller to fence the broker of before: {doubt}", file=sys.stderr, flush=True)
        time.sleep(_ASK_EVERY_S)


def _doubt(port: int) -> str | None:
    """Why the broker of before may still count; None when it does not."""
    # Imported while the controller starts, which takes longer.
    from nearline.broker.controller import Unsure, has_active_broker

    try:
        return "it still counts" if has_active_broker(port) else None
    except Unsure as error:
        return str(error)


if __name__ == "__main__":
    main(sys.argv[1:])
