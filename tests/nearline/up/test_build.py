"""What keeps an instance, or one of its processes, from being put together."""

from pathlib import Path

import pytest

from indexer.errors import NoSuchDevice
from nearline.settings.loading import load_settings
from nearline.up.build import build
from nearline.up.failure_reports import StartTracker
from nearline.up.runtime import run_up
from streams.errors import KafkaRefused


@pytest.mark.parametrize(("process", "setting"), [("serve", "hot"), ("serve", "encode"), ("encode-blue-0", "encode")])
def test_a_gpu_that_is_not_there_is_one_sentence(process: str, setting: str, tmp_path: Path) -> None:
    settings = load_settings(None, tmp_path, **{f"{setting}__device": "cuda:99"})
    with pytest.raises(NoSuchDevice, match=rf"^{setting}\.device is cuda:99, but .* give auto or cpu$"):
        build(process, settings, StartTracker(), lambda _: None)


def test_options_that_do_not_fit_the_embedded_broker_end_the_start(tmp_path: Path) -> None:
    """Otherwise every process would wait for a broker that it can never reach."""
    settings = load_settings(None, tmp_path / "data", kafka__options={"security.protocol": "SSL"})
    with pytest.raises(KafkaRefused, match=r"^kafka\.options: security\.protocol does not fit the embedded broker"):
        run_up(settings)
    assert not (tmp_path / "data").exists()
