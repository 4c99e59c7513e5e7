"""Programs of Debian's packages that only tests and benchmarks start: Prometheus with its promtool, and Chromium.

`python -m benchmarks.kit.programs`, which `make test` calls, gets what is missing where apt-get can. Prometheus is
unpacked into the cache folder, which needs no root and starts no service, as installing its package would. Chromium
needs libraries, so it is installed, if we are root.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

from nearline.broker.jars import cache_folder, locked

Program = Literal["prometheus", "promtool", "chromium"]

REQUIRED: Final = "TEST_PROGRAMS_REQUIRED"
"""A variable of the environment: where it is 1 (`.ci/run`), a program that cannot be had is a failure."""
_PACKAGES: Final[dict[Program, str]] = {"prometheus": "prometheus", "promtool": "prometheus", "chromium": "chromium"}


class CannotGet(Exception):
    """A program is missing and apt-get did not bring it. One sentence."""


def find(program: Program) -> Path | None:
    """The program on the path, else the one that was unpacked."""
    if there := shutil.which(program):
        return Path(there)
    unpacked = _unpacked(_PACKAGES[program]) / "usr" / "bin" / program
    return unpacked if unpacked.exists() else None


def how_to_get(program: Program) -> str:
    return (
        f"{program} is not here; it is in Debian's package {_PACKAGES[program]}: `make test` as root gets it by apt-get"
    )


def get(program: Program) -> None:
    """Nothing happens where it is there. Raises CannotGet."""
    if find(program) is not None:
        return
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise CannotGet(f"{how_to_get(program)}; this system has no apt-get")
    _with_fresh_lists(_install if program == "chromium" else _unpack, _PACKAGES[program])
    if find(program) is None:
        raise CannotGet(f"{how_to_get(program)}; this system's package of that name has no such program")


def _with_fresh_lists(act: Callable[[str], None], package: str) -> None:
    """A container often has no lists of packages, or old ones that name files which are gone."""
    try:
        act(package)
    except CannotGet:
        if os.geteuid() != 0:
            raise
        _run(["apt-get", "-qq", "update"])
        act(package)


def _unpacked(package: str) -> Path:
    return cache_folder() / f"debian-{package}"


def _unpack(package: str) -> None:
    """The folder is complete or absent, as that of the broker's jars is."""
    folder = _unpacked(package)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        if folder.is_dir():
            return
        _run(["apt-get", "-qq", "download", package], Path(temporary))
        (file,) = Path(temporary).glob("*.deb")
        _run(["dpkg", "-x", str(file), f"{temporary}/unpacked"])
        (Path(temporary) / "unpacked").rename(folder)


def _install(package: str) -> None:
    if os.geteuid() != 0:
        raise CannotGet(f"the package {package} is installed only by root")
    # Without waiting for the disk after each of a thousand files: what a crash would break is installed again.
    options = ["-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-unsafe-io"]
    _run(["apt-get", "-qq", *options, "install", "--no-install-recommends", "-y", package])


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise CannotGet(f"`{' '.join(command)}` failed: {said[-1]}")


def main() -> int:
    """Says what could not be had. The status is 1 only where all of it is required."""
    missing = False
    for program in _PACKAGES:
        try:
            get(program)
        except CannotGet as error:
            missing = True
            print(f"tests that need {program} are skipped: {error}", file=sys.stderr)
    return int(missing and os.environ.get(REQUIRED) == "1")


if __name__ == "__main__":
    raise SystemExit(main())
