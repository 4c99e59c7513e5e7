"""The jars of the embedded broker: Maven copies them once into a cache folder that all data folders share.

A folder of jars is complete or absent: it is filled under another name and then renamed. Knows nothing of brokers.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from nearline.errors import StartFailed
from nearline.settings.data_folder import make_writable_folder

POM = Path(__file__).resolve().parents[2] / "deploy" / "kafka" / "pom.xml"


def cache_folder() -> Path:
    """`NEARLINE_CACHE_DIR`, else the user's cache folder, on Linux `~/.cache/nearline` or under `XDG_CACHE_HOME`."""
    if folder := os.environ.get("NEARLINE_CACHE_DIR"):
        return Path(folder).absolute()
    return platformdirs.user_cache_path("nearline")


def jars_folder(pom: Path = POM) -> Path:
    """Where the jars of the current `pom.xml` are, or will be."""
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:16]
    return cache_folder() / f"{pom.parent.name}-{digest}"


def archive_file(java: Path) -> Path:
    """The class archive of these jars for this Java; another version of Java could not read it."""
    stat = java.resolve().stat()
    digest = hashlib.sha256(f"{java.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    return jars_folder().with_name(f"{jars_folder().name}-java-{digest}.jsa")


def ensure_jars(pom: Path = POM) -> Path:
    """The folder of jars. Maven copies them if they are not there; two processes that need them at the same time take
    turns. Raises StartFailed, BadSettings."""
    folder = jars_folder(pom)
    if folder.is_dir():
        return folder
    make_writable_folder(folder.parent, "cache folder", "NEARLINE_CACHE_DIR")
    with locked(folder.with_suffix(".lock")):
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            _copy_jars(pom, partial)
            partial.rename(folder)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A lock on a file, for this process alone. The kernel releases it when the process ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy_jars(pom: Path, folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise StartFailed(f"the jars of {pom.parent.name} come by Maven, and there is no mvn; install Maven 3.6+")
    command = [maven, "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    done = subprocess.run([*command, "-DincludeScope=runtime"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StartFailed(
            f"Maven could not get the jars of {pom.parent.name}: {_first_error(done.stdout + done.stderr)}"
        )


def _first_error(output: str) -> str:
    lines = [line for line in output.splitlines() if "ERROR" in line] or output.splitlines()
    return lines[0].strip() if lines else "it said nothing"
