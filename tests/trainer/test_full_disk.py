from pathlib import Path

import pytest

from tests.kit.children.train_on_full_disk import REFUSED
from tests.kit.data.events import write_events
from tests.kit.data.training_events import TEXTS_ALONE, events
from tests.kit.forks import Forks, Run, output_of


def test_a_full_disk_is_one_sentence_and_training_goes_on_when_there_is_room(tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "train.toml").write_text(TEXTS_ALONE)
    recorded = write_events(tmp_path / "events.jsonl", events())
    arguments = [str(argument) for argument in (tmp_path / "disk", recorded, tmp_path / "train.toml")]
    child = Run("tests.kit.children.train_on_full_disk", arguments, str(tmp_path / "output"))
    (status,) = forks.run(child)
    if status == REFUSED:
        pytest.skip(f"a disk of its own for this test is refused here: {output_of(child)}")
    assert status == 0, output_of(child)
