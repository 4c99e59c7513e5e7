"""Publishes a package and dies after so many writes, if asked to: `python -m ... REGISTRY PACKAGE [WRITES]`."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import obstore

from encoders.packages import ModelPackage
from trainer.errors import BadRegistry
from trainer.registry import Registry

_put = obstore.put


def dying_after(writes: int) -> Any:
    left = [writes]

    def put(*arguments: Any, **options: Any) -> Any:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return _put(*arguments, **options)

    return put


if __name__ == "__main__":
    place, folder, *writes = sys.argv[1:]
    if writes:
        obstore.put = dying_after(int(writes[0]))
    try:
        Registry(place).publish(ModelPackage.load(Path(folder)), {"forced": "test"})
    except BadRegistry as error:
        sys.exit(str(error))
