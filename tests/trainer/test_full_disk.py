import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer import full_disk_child
from tests.trainer.kit import events, write_events
from tests.trainer.test_training import CONFIG


def test_a_full_disk_is_one_sentence_and_training_goes_on_when_there_is_room(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here, so no disk of its own for this test")
    (tmp_path / "disk").mkdir()
    (tmp_path / "train.toml").write_text(CONFIG)
    recorded = write_events(tmp_path / "events.jsonl", events())
    own_mounts = ["unshare", "--user", "--map-root-user", "--mount"]
    arguments = [tmp_path / "disk", recorded, tmp_path / "train.toml"]
    command = [*own_mounts, sys.executable, "-m", "tests.trainer.full_disk_child", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == full_disk_child.REFUSED or "unshare" in done.stderr:
        pytest.skip("mounting is refused here")
    assert done.returncode == 0, done.stdout + done.stderr
