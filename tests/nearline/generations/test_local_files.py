"""What a generation has in the data folder of a machine."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from nearline.generations.local_files import (
    cold_folder,
    empty_if_of_an_earlier_life,
    has_local_files,
    hot_folder,
    remove_local_files,
    remove_snapshots_of_no_generation,
)
from nearline.generations.packages import packages_folder
from schemas.ids import Generation
from tests.kit.data.generations import AT, generation_record

A, B = Generation("a-1"), Generation("b-2")


def test_the_cold_tier_of_an_earlier_life_is_thrown_away(tmp_path: Path) -> None:
    """This machine was away while the generation was retired and built again."""
    folder = cold_folder(tmp_path, A)
    record = generation_record("a-1", begun=AT)
    for newer in (record, replace(record, state="kept")):
        empty_if_of_an_earlier_life(folder, newer)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "posts").touch()
    empty_if_of_an_earlier_life(folder, record)
    assert (folder / "posts").exists(), "the same life"
    empty_if_of_an_earlier_life(folder, replace(record, begun=AT + timedelta(microseconds=1)))
    assert not folder.exists()


def test_what_a_version_without_lives_wrote_is_taken_over(tmp_path: Path) -> None:
    folder = cold_folder(tmp_path, A)
    folder.mkdir(parents=True)
    empty_if_of_an_earlier_life(folder, generation_record("a-1", begun=AT))
    assert folder.exists()


def test_a_retired_generation_leaves_nothing_and_others_stay(tmp_path: Path) -> None:
    for generation in (A, B):
        folder = cold_folder(tmp_path, generation)
        empty_if_of_an_earlier_life(folder, generation_record(generation))
        for made in (folder, packages_folder(tmp_path) / generation, tmp_path / "hot" / generation):
            made.mkdir(parents=True)
    retired = replace(generation_record(A, "retired", None), since=datetime.now(UTC) + timedelta(seconds=1))
    remove_local_files(tmp_path, retired)
    remove_local_files(tmp_path, retired)
    assert (has_local_files(tmp_path, A), has_local_files(tmp_path, B)) == (False, True)
    assert [path.name for path in tmp_path.rglob("*a-1*")] == []


def test_a_package_that_was_fetched_to_build_it_again_stays(tmp_path: Path) -> None:
    """The log does not say yet that it is built."""
    retired = replace(generation_record(A, "retired", None), since=datetime.now(UTC) - timedelta(seconds=1))
    fetched = packages_folder(tmp_path) / A
    for made in (fetched, fetched.with_name("a-1.fetching"), cold_folder(tmp_path, A)):
        made.mkdir(parents=True)
    remove_local_files(tmp_path, retired)
    assert sorted(path.name for path in tmp_path.rglob("*a-1*")) == ["a-1", "a-1.fetching"]


def test_snapshots_of_a_version_with_one_generation_are_removed(tmp_path: Path) -> None:
    """Nobody would write them anew, so what was deleted since would stay in them."""
    (tmp_path / "hot" / "topic-id").mkdir(parents=True)
    (tmp_path / "hot" / "topic-id" / "posts").touch()
    hot_folder(tmp_path, A).mkdir()
    (hot_folder(tmp_path, B) / "topic-id").mkdir(parents=True)
    (hot_folder(tmp_path, B) / "topic-id" / "posts").touch()
    remove_snapshots_of_no_generation(tmp_path)
    remove_snapshots_of_no_generation(tmp_path)
    assert {path.name for path in (tmp_path / "hot").iterdir()} == {A, B}
    assert (hot_folder(tmp_path, B) / "topic-id" / "posts").exists()


def test_where_there_is_no_snapshot_nothing_is_removed(tmp_path: Path) -> None:
    remove_snapshots_of_no_generation(tmp_path)
    assert list(tmp_path.iterdir()) == []
