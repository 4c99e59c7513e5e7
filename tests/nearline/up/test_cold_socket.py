import tempfile
from pathlib import Path

import pytest

from nearline.errors import BadSettings
from nearline.up.cold_socket import cold_socket

_LONG = Path("/data") / ("long" * 30)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_socket_is_in_the_data_folder_where_its_path_is_short_enough() -> None:
    assert cold_socket(Path("/data")) == Path("/data/cold.sock")


def test_else_it_is_in_a_folder_that_only_its_user_may_enter(temporary: Path) -> None:
    socket = cold_socket(_LONG)
    assert socket == cold_socket(_LONG), "everybody who asks must find it"
    assert socket != cold_socket(_LONG / "other")
    assert socket.parent.parent == temporary
    assert socket.parent.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_enter_is_refused(temporary: Path) -> None:
    folder = cold_socket(_LONG).parent
    folder.chmod(0o755)
    with pytest.raises(BadSettings, match=r"open to others.*; remove it, or give a data folder with a shorter path"):
        cold_socket(_LONG)


def test_a_link_to_a_folder_is_refused(temporary: Path) -> None:
    """Whoever made the link may let it point somewhere else at any time."""
    folder = cold_socket(_LONG).parent
    folder.rmdir()
    (temporary / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(temporary / "elsewhere")
    with pytest.raises(BadSettings, match="belongs to somebody else"):
        cold_socket(_LONG)


@pytest.mark.parametrize("thing", ["a file", "a link to nothing"])
def test_what_is_no_folder_is_refused(temporary: Path, thing: str) -> None:
    folder = cold_socket(_LONG).parent
    folder.rmdir()
    if thing == "a file":
        folder.touch(mode=0o600)
    else:
        folder.symlink_to(temporary / "nothing")
    with pytest.raises(BadSettings, match=r"sockets are kept there; remove it, or give a data folder"):
        cold_socket(_LONG)


def test_a_folder_of_somebody_else_is_refused(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cold_socket(_LONG).parent
    other_user = folder.stat().st_uid + 1
    monkeypatch.setattr("os.getuid", lambda: other_user)
    folder.rename(folder.with_name(f"nearline-{other_user}"))
    with pytest.raises(BadSettings, match="belongs to somebody else"):
        cold_socket(_LONG)
