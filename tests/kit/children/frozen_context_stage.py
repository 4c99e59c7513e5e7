"""A context stage that freezes before its first transaction. When it is thawed it goes on only after its client has
heard that it is out of the group: `python -m tests.kit.children.frozen_context_stage BOOTSTRAP DATA_DIR SLOT`."""

import os
import signal
import sys
import time

from streams.kafka.transactional_loop import TransactionalLoop
from tests.kit.children import context_stage

begin = TransactionalLoop._begin


def freeze_first(loop: TransactionalLoop) -> None:
    TransactionalLoop._begin = begin  # type: ignore[method-assign]
    os.kill(os.getpid(), signal.SIGSTOP)
    while loop._consumer.memberid():
        time.sleep(0.05)
    begin(loop)


if __name__ == "__main__":
    TransactionalLoop._begin = freeze_first  # type: ignore[method-assign]
    context_stage.main(*sys.argv[1:])
