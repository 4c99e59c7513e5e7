"""Publishes a package: `python -m tests.kit.children.publish REGISTRY PACKAGE`.

With `kills` behind it, it publishes again and again, each time to the next of REGISTRY-0, REGISTRY-1 …, and is killed
at every write: before it, and (of a folder, by the size that a file may have) within it. Prints each time's wait status
as a JSON line.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore

from encoders.package.model_package import ModelPackage
from trainer.errors import BadRegistry
from trainer.publishing.registry import Registry

_put = obstore.put


def dying_at(write: int, *, within: bool) -> Any:
    left = [write]

    def put(store: Any, path: str, file: Any, **options: Any) -> Any:
        if left[0] == 0:
            if not within:
                os.kill(os.getpid(), signal.SIGKILL)
            size = len(file) if isinstance(file, bytes) else file.stat().st_size
            # The kernel writes the first half, and ends the process in the call that asks for more.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
        left[0] -= 1
        return _put(store, path, file, **options)

    return put


def publish(place: str, package: ModelPackage) -> None:
    try:
        Registry(place).publish(package, {"forced": "test"})
    except BadRegistry as error:
        sys.exit(str(error))


def killed(place: str, package: ModelPackage) -> Iterator[dict[str, Any]]:
    """Forks before obstore has a thread: to load all that a package needs takes longer than to publish it."""
    number = 0
    for write in range(len(package.manifest.files) + 2):
        for within in (False, True) if "://" not in place else (False,):
            child = os.fork()
            if child == 0:
                obstore.put = dying_at(write, within=within)
                publish(f"{place}-{number}", package)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            yield {"place": f"{place}-{number}", "write": write, "within": within, "status": status}
            number += 1


if __name__ == "__main__":
    place, folder, *kills = sys.argv[1:]
    if kills:
        for record in killed(place, ModelPackage.load(Path(folder))):
            sys.stdout.write(json.dumps(record) + "\n")
    else:
        publish(place, ModelPackage.load(Path(folder)))
