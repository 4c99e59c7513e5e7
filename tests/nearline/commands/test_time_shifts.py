"""The same file sent again moves by the same constant."""

from pathlib import Path

from nearline.commands._time_shifts import TimeShift, TimeShifts, shift_to
from schemas.times import from_rfc3339


def test_the_first_shift_of_a_file_holds(tmp_path: Path) -> None:
    assert TimeShifts(tmp_path).find("d1") is None
    assert TimeShifts(tmp_path).remember("d1", TimeShift("a.jsonl", 5)) == 5
    assert TimeShifts(tmp_path).remember("d1", TimeShift("b.jsonl", 9)) == 5
    assert TimeShifts(tmp_path).find("d1") == 5
    assert TimeShifts(tmp_path).find("d2") is None
    assert [path.name for path in (tmp_path / "shifts").iterdir()] == ["d1.json"]


def test_a_shift_is_whole_seconds_and_ends_within_a_second_of_now() -> None:
    now, newest = from_rfc3339("2026-03-01T00:00:00.25Z"), from_rfc3339("2026-01-01T00:00:00.75Z")
    shift = shift_to(now, newest)
    assert shift % 1_000_000 == 0
    assert 0 <= now - (newest + shift) < 1_000_000
