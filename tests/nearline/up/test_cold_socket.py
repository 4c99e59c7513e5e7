import tempfile
from pathlib import Path

import pytest

from nearline.errors import BadSettings
from nearline.up.cold_socket import cold_socket, remove_cold_sockets
from schemas.ids import Generation

_LONG = Path("/data") / ("long" * 30)
_A, _B = Generation("a-1"), Generation("b-2")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_socket_is_in_the_data_folder_where_its_path_is_short_enough() -> None:
    assert cold_socket(Path("/data"), _A) == Path("/data/cold.a-1.sock")


def test_else_it_is_in_a_folder_that_only_its_user_may_enter(temporary: Path) -> None:
    socket = cold_socket(_LONG, _A)
    assert socket == cold_socket(_LONG, _A), "everybody who asks must find it"
    assert socket != cold_socket(_LONG / "other", _A)
    assert socket.parent.parent == temporary
    assert socket.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("long", [False, True])
def test_each_generation_has_its_own_and_an_instance_removes_all_of_its_own(
    temporary: Path, tmp_path: Path, long: bool
) -> None:
    data_dir, other = (tmp_path / name / ("long" * 30 if long else "") for name in "ab")
    sockets = [cold_socket(data_dir, _A), cold_socket(data_dir, _B), cold_socket(other, _A)]
    assert len(set(sockets)) == len(sockets)
    for socket in sockets:
        socket.parent.mkdir(parents=True, exist_ok=True)
        socket.touch()
    remove_cold_sockets(data_dir)
    assert [socket.exists() for socket in sockets] == [False, False, True]
    remove_cold_sockets(other)
    assert not any(socket.exists() for socket in sockets)


def test_a_folder_that_others_may_enter_is_refused(temporary: Path) -> None:
    folder = cold_socket(_LONG, _A).parent
    folder.chmod(0o755)
    with pytest.raises(BadSettings, match=r"open to others.*; remove it, or give a data folder with a shorter path"):
        cold_socket(_LONG, _A)


def test_a_link_to_a_folder_is_refused(temporary: Path) -> None:
    """Whoever made the link may let it point somewhere else at any time."""
    folder = cold_socket(_LONG, _A).parent
    folder.rmdir()
    (temporary / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(temporary / "elsewhere")
    with pytest.raises(BadSettings, match="belongs to somebody else"):
        cold_socket(_LONG, _A)


@pytest.mark.parametrize("thing", ["a file", "a link to nothing"])
def test_what_is_no_folder_is_refused(temporary: Path, thing: str) -> None:
    folder = cold_socket(_LONG, _A).parent
    folder.rmdir()
    if thing == "a file":
        folder.touch(mode=0o600)
    else:
        folder.symlink_to(temporary / "nothing")
    with pytest.raises(BadSettings, match=r"sockets are kept there; remove it, or give a data folder"):
        cold_socket(_LONG, _A)


def test_a_folder_of_somebody_else_is_refused(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cold_socket(_LONG, _A).parent
    other_user = folder.stat().st_uid + 1
    monkeypatch.setattr("os.getuid", lambda: other_user)
    folder.rename(folder.with_name(f"nearline-{other_user}"))
    with pytest.raises(BadSettings, match="belongs to somebody else"):
        cold_socket(_LONG, _A)
