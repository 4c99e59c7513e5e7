"""The last state of the generations in a file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.generations import Autopilot, Canary
from schemas.ids import Generation
from streams.generations.last_state import remember, remembered
from tests.kit.data.generations import AT, founded, two_live


def test_what_was_kept_comes_back_and_the_newest_counts(tmp_path: Path) -> None:
    file = tmp_path / "generations.jsonl"
    assert remembered(file) is None
    remember(file, founded())
    state = two_live("ready", canary=Canary(Generation("b-2"), 0.05, AT)).with_records([Autopilot(on=True, since=AT)])
    remember(file, state)
    assert remembered(file) == state
    assert [path.name for path in tmp_path.iterdir()] == ["generations.jsonl"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-20],
        lambda content: content.replace(b"serving", b"sorving"),
        lambda content: b"\n".join(content.splitlines()[:-1]),
        lambda content: b"\xff" + content,
        lambda content: b"[" * 100_000,
    ],
)
def test_a_damaged_file_counts_as_missing(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = tmp_path / "generations.jsonl"
    remember(file, founded())
    file.write_bytes(damage(file.read_bytes()))
    assert remembered(file) is None


def test_a_file_that_cannot_be_read_counts_as_missing(tmp_path: Path) -> None:
    assert remembered(tmp_path) is None
