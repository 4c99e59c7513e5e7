"""Small files are there whole or not at all, whoever writes at the same time."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schemas.files import write_once, write_whole


def test_the_last_content_stays_and_only_its_owner_reads_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    write_whole(file, b"old", mode=0o600)
    write_whole(file, b"new", mode=0o600)
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file], "nothing is left beside it"


def test_of_many_that_write_once_the_first_counts_for_all(tmp_path: Path) -> None:
    file = tmp_path / "node-id"

    def write_and_read(number: int) -> bytes:
        write_once(file, b"%d" % number)
        return file.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        contents = set(pool.map(write_and_read, range(64)))
    assert len(contents) == 1
    assert list(tmp_path.iterdir()) == [file], "nothing is left beside it"


@pytest.mark.parametrize("write", [write_whole, write_once])
def test_without_a_folder_it_is_an_error_and_nothing_is_left(tmp_path: Path, write: type) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "missing" / "file", b"content")
    assert list(tmp_path.iterdir()) == []
