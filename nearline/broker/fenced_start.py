"""Starts the embedded broker's process, after a controller has fenced the registration of the broker before it.

`python -m nearline.broker.fenced_start OUTPUT PORT CONTROLLER... -- BROKER...` runs the command CONTROLLER, a Kafka
node that is only a controller and listens at PORT, until it says that no broker is active. Then this process becomes
BROKER and keeps its pid.

Why: the metadata on the disk still says that the old broker leads every partition. A broker that starts believes this
until the controller fences the old registration and accepts the new one. Between the two, for a moment, no partition
has a leader. A commit or abort marker that the transaction coordinator has to write in that moment is dropped, as if
the partition were deleted, and the transaction counts as complete (Kafka 4.3,
`TransactionMarkerChannelManager.addTxnMarkersToBrokerQueue`). In a cluster another replica leads meanwhile. A single
node has none.

An example: `nearline up` is killed while a worker's transaction is open, with 100 records in `post-contexts`-3.

    Without this module:
    00:00  kill -9. On the disk broker 1 leads post-contexts-3, and the transaction is open, for at most 15 s.
    00:20  The broker starts and believes that it leads everything. Its coordinator sees that the 15 s are over, and
           has an abort marker written to the leader of post-contexts-3.
    00:20  The controller fences the old registration of broker 1. post-contexts-3 has no leader: the marker is dropped.
    00:21  The controller accepts the new registration. Broker 1 leads again, but nobody writes the marker any more. The
           100 records stay undecided for ever: no consumer of committed records reads past them, and a group whose
           offsets are in the transaction never gets them.

    With this module:
    00:20  A controller alone starts. After 300 ms without a heartbeat it fences broker 1. It is asked until it answers
           that no broker is active, and then stopped.
    00:22  The broker starts and knows that it leads nothing, not even the coordinator's own topic. So the coordinator
           begins only when the new registration is accepted, and by then post-contexts-3 has its leader again. The
           marker is written, and readers go on.
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
_PRINT_EVERY_S: Final = 10.0


def main(arguments: Sequence[str]) -> None:
    output, port, *commands = arguments
    split = commands.index("--")
    fence(commands[:split], int(port), Path(output))
    broker = commands[split + 1 :]
    os.execv(broker[0], broker)


def fence(controller: Sequence[str], port: int, output: Path) -> None:
    """Runs the controller. Returns when it has answered that the old registration is fenced, and has been stopped."""
    with output.open("wb") as file:
        process = children.spawn(controller, output=file, dies_with_parent=True)
    try:
        wait_until_fenced(process, port, output)
    finally:
        children.stop_all([process], _STOP_S)


def wait_until_fenced(
    controller: children.Child, port: int, output: Path, print_every_s: float = _PRINT_EVERY_S
) -> None:
    """Asks the controller until it answers that no broker is active. Prints every `print_every_s` what is missing.
    Exits when the controller ends: what answered at its port may then have been another one."""
    printed_at = time.monotonic()
    while (reason := _reason_to_wait(port)) is not None or controller.poll() is not None:
        if controller.poll() is not None:
            sys.exit(f"the controller ended before it had fenced the previous broker; its output is in {output}")
        if time.monotonic() > printed_at + print_every_s:
            printed_at = time.monotonic()
            print(f"waiting for the controller to fence the previous broker: {reason}", file=sys.stderr, flush=True)
        time.sleep(_ASK_EVERY_S)


def _reason_to_wait(port: int) -> str | None:
    """None when the controller has answered that no broker is active."""
    # Imported here, while the controller starts, which takes longer than the import.
    from nearline.broker.controller import NoAnswer, has_active_broker

    try:
        return "it is still active" if has_active_broker(port) else None
    except NoAnswer as error:
        return str(error)


if __name__ == "__main__":
    main(sys.argv[1:])
