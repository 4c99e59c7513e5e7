"""How much room a data folder's file system has."""

import shutil
from pathlib import Path

from nearline.data_folder_metrics import DataFolderMetrics


def samples(folder: Path) -> dict[str, float]:
    return {each.name: each.value for metric in DataFolderMetrics(folder).collect() for each in metric.samples}


def test_it_is_what_the_system_says(tmp_path: Path) -> None:
    said = samples(tmp_path)
    assert said["nearline_data_folder_size_bytes"] == shutil.disk_usage(tmp_path).total
    assert 0 < said["nearline_data_folder_free_bytes"] <= said["nearline_data_folder_size_bytes"]


def test_a_folder_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert samples(tmp_path / "later") == {}
