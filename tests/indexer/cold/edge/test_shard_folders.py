"""One folder takes the place of another, and a kill leaves one of them whole."""

from pathlib import Path

import pytest

from indexer.cold.edge import shard_folders


def test_a_copy_that_is_not_whole_takes_no_shards_place(tmp_path: Path) -> None:
    new, current = tmp_path / "0.new", tmp_path / "0"
    for folder in (new, current):
        folder.mkdir()
    (current / "edge_config.json").write_text("whole")
    with pytest.raises(FileNotFoundError, match=r"edge_config\.json"):
        shard_folders.swap(new, current)
    assert [path.name for path in current.iterdir()] == ["edge_config.json"]
    (new / "edge_config.json").write_text("new")
    shard_folders.swap(new, current)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    assert (current / "edge_config.json").read_text() == "new"


@pytest.mark.parametrize("killed", ["while it copies", "between the two names", "before the old one is removed"])
def test_a_shard_is_whole_wherever_its_rewrite_is_killed(tmp_path: Path, killed: str) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "data").write_text("whole")
    (tmp_path / "0.new").mkdir()
    if killed != "while it copies":
        (tmp_path / "0").rename(tmp_path / "0.old")
    if killed == "before the old one is removed":
        (tmp_path / "0.new").rename(tmp_path / "0")
        (tmp_path / "0" / "data").write_text("whole")
        (tmp_path / "0.old" / "data").write_text("old")
    shard_folders.recover(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    assert (tmp_path / "0" / "data").read_text() == "whole"
