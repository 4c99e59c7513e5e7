"""A package's files are hashed once, and again as soon as anything was done to one of them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from encoders import package_writer
from encoders.encoder import Encoder
from encoders.errors import BadPackage
from encoders.package import checked_files, model_package
from encoders.package.checked_files import CheckedFiles
from encoders.package.model_package import WEIGHTS_FILE, ModelPackage
from tests.kit.packages import make_tiny_package
from tests.kit.waiting import until


class Hashed(list[str]):
    """The names of the files that were hashed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        digest = model_package.file_digest

        def noted(path: Path) -> str:
            self.append(path.name)
            return digest(path)

        monkeypatch.setattr(model_package, "file_digest", noted)
        monkeypatch.setattr(package_writer, "file_digest", noted)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Hashed:
    monkeypatch.setattr(checked_files, "_SETTLED_NS", 0)
    return Hashed(monkeypatch)


@pytest.fixture
def checked(tmp_path: Path) -> CheckedFiles:
    return CheckedFiles(tmp_path / "data" / "checked")


def test_the_next_process_does_not_hash_again(hashed: Hashed, copy: Path, checked: CheckedFiles) -> None:
    first = ModelPackage.load(copy, checked)
    assert sorted(hashed) == sorted(Path(name).name for name in first.manifest.files)
    hashed.clear()
    assert ModelPackage.load(copy, checked) == first
    assert Encoder.load(copy, device="cpu", checked=checked).package == first
    assert hashed == []


def _now_ns(folder: Path) -> int:
    """By the clock of the file system, which goes in steps of some milliseconds."""
    (folder / "now").write_bytes(b"now")
    return (folder / "now").stat().st_ctime_ns


def rewrite_in_place(file: Path) -> None:
    """Also puts back the time that everybody looks at."""
    stat, body = file.stat(), bytearray(file.read_bytes())
    body[-2] ^= 1
    with file.open("r+b") as opened:
        opened.write(body)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replace(file: Path) -> None:
    other = file.with_name("other")
    shutil.copy2(file, other)
    rewrite_in_place(other)
    other.replace(file)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


@pytest.mark.parametrize("change", [rewrite_in_place, replace, cut])
def test_a_file_that_was_changed_since_is_found(
    hashed: Hashed, copy: Path, checked: CheckedFiles, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    ModelPackage.load(copy, checked)
    until(lambda: _now_ns(tmp_path) > (copy / WEIGHTS_FILE).stat().st_ctime_ns, "a step of the clock of the files")
    change(copy / WEIGHTS_FILE)
    for _ in range(2):
        with pytest.raises(BadPackage, match="is not the file that was recorded"):
            ModelPackage.load(copy, checked)


def test_a_copy_elsewhere_is_hashed(hashed: Hashed, copy: Path, checked: CheckedFiles, tmp_path: Path) -> None:
    ModelPackage.load(copy, checked)
    hashed.clear()
    ModelPackage.load(Path(shutil.copytree(copy, tmp_path / "elsewhere")), checked)
    assert WEIGHTS_FILE in hashed


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b'{"config.json": "x"}', b"\xff"])
def test_a_spoilt_note_is_none(hashed: Hashed, copy: Path, checked: CheckedFiles, rubbish: bytes) -> None:
    ModelPackage.load(copy, checked)
    (note,) = checked._folder.iterdir()
    note.write_bytes(rubbish)
    hashed.clear()
    ModelPackage.load(copy, checked)
    assert WEIGHTS_FILE in hashed


def test_a_note_that_cannot_be_written_costs_nothing_but_time(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for _ in range(2):
        ModelPackage.load(copy, CheckedFiles(tmp_path / "file" / "checked"))


def test_what_has_just_changed_is_not_noted(copy: Path, checked: CheckedFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked_files, "_SETTLED_NS", 3600 * 10**9)
    ModelPackage.load(copy, checked)
    assert not checked._folder.exists()


def test_a_package_is_hashed_once_when_it_is_written(hashed: Hashed, tmp_path: Path) -> None:
    package = make_tiny_package(tmp_path / "p")
    assert sorted(hashed) == sorted(Path(name).name for name in package.manifest.files)


def test_a_large_model_becomes_no_package_on_a_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(package_writer, "_MOST_PARAMETERS_ON_CPU", 10_000)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BadPackage, match=r"billion parameters .* on a machine with a GPU"):
        make_tiny_package(tmp_path / "p")
    assert list(tmp_path.iterdir()) == []
    devices: list[str] = []

    def unchecked(_: ModelPackage, *, device: str) -> Encoder:
        devices.append(device)
        raise BadPackage("seen")

    monkeypatch.setattr(Encoder, "unchecked", unchecked)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(BadPackage, match="seen"):
        make_tiny_package(tmp_path / "p")
    assert devices == ["cuda"]
