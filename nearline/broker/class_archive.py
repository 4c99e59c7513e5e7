"""Makes the class archive beside the broker's jars: with it the JVM needs half the CPU to start a broker.

A broker also starts without it. `python -m nearline.broker.class_archive`, called once at set-up, gets the jars and
makes the archive by starting and stopping a broker in a temporary folder.
"""

import tempfile
from pathlib import Path
from typing import Final

from nearline.broker.embedded import EmbeddedBroker, find_java
from nearline.broker.jars import archive_file, ensure_jars, locked

_WRITING_S: Final = 120.0


def ensure_archive() -> Path:
    """The archive is complete or absent, as the jars are. Raises StartFailed."""
    ensure_jars()
    archive = archive_file(find_java())
    with locked(archive.with_suffix(".lock")):
        if not archive.exists():
            _make(archive)
    return archive


def _make(archive: Path) -> None:
    partial = archive.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="nearline-archive-") as folder:
        broker = EmbeddedBroker(Path(folder), jvm=(f"-XX:ArchiveClassesAtExit={partial}",))
        try:
            broker.start()
        finally:
            broker.stop(_WRITING_S)
    partial.rename(archive)


if __name__ == "__main__":
    ensure_archive()
