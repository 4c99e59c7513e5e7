"""What keeps an instance, or one of its processes, from being put together."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from indexer.errors import NoSuchDevice, TierRefused
from nearline.settings.loading import load_settings
from nearline.up.build import build
from nearline.up.failure_reports import StartTracker
from nearline.up.run_stage import _StageRun, run_stage
from nearline.up.runtime import Runtime, run_up
from streams.errors import KafkaRefused


@pytest.mark.parametrize(("process", "setting"), [("serve", "hot"), ("serve", "encode"), ("encode-blue-0", "encode")])
def test_a_gpu_that_is_not_there_is_one_sentence(process: str, setting: str, tmp_path: Path) -> None:
    settings = load_settings(None, tmp_path, **{f"{setting}__device": "cuda:99"})
    with pytest.raises(NoSuchDevice, match=rf"^{setting}\.device is cuda:99, but .* give auto or cpu$"):
        build(process, settings, StartTracker(), lambda _: None)


ELSEWHERE: Final[dict[str, dict[str, Any]]] = {
    r"^encode\.device is cuda:99, but .* give auto or cpu$": {"encode__device": "cuda:99"},
    r"^hot\.device is cuda:99, but .* give auto or cpu$": {"hot__device": "cuda:99"},
    r"^cold\.ca_file: /.*/gone\.pem cannot be read: No such file or directory; mend the path, or leave it out": {
        "cold__url": "https://127.0.0.1:1",
        "cold__ca_file": "gone.pem",
    },
}
"""What may be there on another machine, by the sentence about it on this one."""


@pytest.mark.parametrize("sentence", ELSEWHERE)
def test_what_is_not_on_this_machine_ends_the_start(
    sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child process would say it only after it was started three times."""
    monkeypatch.setattr(Runtime, "run", lambda _: pytest.fail("it was started"))
    settings = load_settings(None, tmp_path / "data", **ELSEWHERE[sentence])
    with pytest.raises((NoSuchDevice, TierRefused), match=sentence):
        run_up(settings)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("sentence", "users"),
    [*zip(ELSEWHERE, [{"encode-blue-0", "serve"}, {"serve"}, {"cold-blue", "serve"}], strict=True)],
)
def test_only_a_stage_that_uses_it_is_refused(
    sentence: str, users: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(_StageRun, "run", lambda run: started.extend(run._names))
    settings = load_settings(None, tmp_path, kafka__bootstrap_servers="127.0.0.1:1", **ELSEWHERE[sentence])
    names = {"contexts-0", "trending", "autopilot", "monitor", "encode-blue-0", "cold-blue", "serve"}
    for name in names:
        with suppress(NoSuchDevice, TierRefused):
            run_stage(settings, [name])
    assert set(started) == names - users


def test_options_that_do_not_fit_the_embedded_broker_end_the_start(tmp_path: Path) -> None:
    """Otherwise every process would wait for a broker that it can never reach."""
    settings = load_settings(None, tmp_path / "data", kafka__options={"security.protocol": "SSL"})
    with pytest.raises(KafkaRefused, match=r"^kafka\.options: security\.protocol does not fit the embedded broker"):
        run_up(settings)
    assert not (tmp_path / "data").exists()
