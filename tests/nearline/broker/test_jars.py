"""Where the broker's jars are kept."""

from pathlib import Path

import pytest

from nearline.broker.jars import cache_folder, ensure_jars
from nearline.errors import BadSettings


def test_the_cache_folder_is_the_users_own_unless_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NEARLINE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "nearline"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "nearline"
    monkeypatch.setenv("NEARLINE_CACHE_DIR", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"


def test_a_cache_folder_that_cannot_be_made_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_CACHE_DIR", "/proc/x")
    sentence = r"^cache folder: /proc/x cannot be made or written \(No such file or directory\); choose another with "
    with pytest.raises(BadSettings, match=f"{sentence}NEARLINE_CACHE_DIR$"):
        ensure_jars()
