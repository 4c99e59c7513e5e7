"""What keeps a process from being put together."""

from pathlib import Path

import pytest

from indexer.errors import NoSuchDevice
from nearline.settings.loading import load_settings
from nearline.up.build import build
from nearline.up.failure_reports import StartTracker


@pytest.mark.parametrize(("process", "setting"), [("serve", "hot"), ("serve", "encode"), ("encode-0", "encode")])
def test_a_gpu_that_is_not_there_is_one_sentence(process: str, setting: str, tmp_path: Path) -> None:
    settings = load_settings(None, tmp_path, **{f"{setting}__device": "cuda:99"})
    with pytest.raises(NoSuchDevice, match=rf"^{setting}\.device is cuda:99, but .* give auto or cpu$"):
        build(process, settings, StartTracker(), lambda _: None)
