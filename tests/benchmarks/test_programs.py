"""Programs of Debian's packages, with an apt-get that says what it was asked for."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from benchmarks.kit import programs
from benchmarks.kit.programs import REQUIRED, CannotGet, find, get
from tests.kit.browser import running_browser
from tests.kit.programs import needs, program

_APT: Final = """#!/bin/sh
echo "$@" >> "$ASKED"
case "$*" in
  *update*) touch "$ASKED.lists" ;;
  *download*) [ -e "$ASKED.lists" ] || { echo "E: Unable to locate package" >&2; exit 100; }; touch some.deb ;;
  *) echo "E: it is broken" >&2; exit 100 ;;
esac
"""
_DPKG: Final = """#!/bin/sh
mkdir -p "$3/usr/bin" && cp "$0" "$3/usr/bin/prometheus" && cp "$0" "$3/usr/bin/promtool"
"""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of programs of a system with nothing but a shell and what a test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "mkdir", "touch", "cp"):
        (folder / name).symlink_to(Path("/bin") / name)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    monkeypatch.setenv("NEARLINE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return folder


def _add(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def _with_apt(folder: Path) -> Path:
    _add(folder, "apt-get", _APT)
    _add(folder, "dpkg", _DPKG)
    return folder.parent / "asked"


def test_prometheus_is_unpacked_once_and_installed_never(system: Path) -> None:
    asked = _with_apt(system)
    get("prometheus")
    get("promtool")
    assert asked.read_text().splitlines() == ["-qq download prometheus", "-qq update", "-qq download prometheus"]
    found = find("promtool")
    assert found is not None
    assert found.is_relative_to(system.parent / "cache")
    assert program("promtool") == found
    assert sorted(path.name for path in (system.parent / "cache").iterdir()) == [
        "debian-prometheus",
        "debian-prometheus.lock",
    ]


def test_a_program_of_the_system_comes_first(system: Path) -> None:
    asked = _with_apt(system)
    _add(system, "promtool", "#!/bin/sh\n")
    get("promtool")
    assert find("promtool") == system / "promtool"
    assert not asked.exists()


def test_only_root_installs(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _with_apt(system)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotGet, match="only by root"):
        get("chromium")
    assert not asked.exists()


def test_what_apt_says_last_is_in_the_sentence(system: Path) -> None:
    _with_apt(system)
    with pytest.raises(CannotGet, match="failed: E: it is broken"):
        get("chromium")


@pytest.mark.parametrize("required", [True, False])
def test_what_cannot_be_had_is_a_failure_only_where_it_is_required(
    system: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], required: bool
) -> None:
    monkeypatch.setenv(REQUIRED, str(int(required)))
    assert programs.main() == int(required)
    assert "no apt-get" in capsys.readouterr().err
    outcome = pytest.fail.Exception if required else pytest.skip.Exception
    with pytest.raises(outcome, match="in Debian's package prometheus: `make test` as root"):
        program("promtool")


@pytest.mark.parametrize(
    ("is_here", "required", "is_skipped"), [(False, "0", True), (False, "1", False), (True, "0", False)]
)
def test_tests_in_a_browser_go_by_the_same_look_up(
    system: Path, monkeypatch: pytest.MonkeyPatch, is_here: bool, required: str, is_skipped: bool
) -> None:
    """Whatever lies at another place of this machine, and whoever else sets CI."""
    monkeypatch.setenv("CI", "1")
    monkeypatch.setenv(REQUIRED, required)
    if is_here:
        _add(system, "chromium", "#!/bin/sh\n")
        assert program("chromium") == system / "chromium"
    assert needs("chromium").args == (is_skipped,)


def test_a_browser_that_is_missing_is_one_sentence(system: Path) -> None:
    with (
        pytest.raises(CannotGet, match=r"^chromium is not here; it is in Debian's package chromium"),
        running_browser(),
    ):
        pytest.fail("another browser was taken")


def test_it_runs_as_make_calls_it(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "NEARLINE_CACHE_DIR": str(tmp_path), REQUIRED: "1"}
    command = [sys.executable, "-m", "benchmarks.kit.programs"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 3
