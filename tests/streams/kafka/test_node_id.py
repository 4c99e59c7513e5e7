"""The name of a machine, of which transactional ids are made."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from streams.kafka.node_id import node_id
from streams.settings import KafkaSettings


def test_it_is_made_once_and_stays_with_the_folder(tmp_path: Path) -> None:
    first = node_id(KafkaSettings(), tmp_path / "data")
    assert node_id(KafkaSettings(), tmp_path / "data") == first
    assert node_id(KafkaSettings(), tmp_path / "other") != first


def test_the_name_of_a_pod_stays_where_its_folder_is_lost(tmp_path: Path) -> None:
    named = KafkaSettings(node_id="contexts-0")
    assert node_id(named, tmp_path / "data") == node_id(named, tmp_path / "other") == "contexts-0"
    assert not (tmp_path / "data").exists(), "the folder keeps a name of its own for when the setting goes"


@pytest.mark.parametrize("name", ["", "contexts.0", "a b", "a/b", "x" * 101])
def test_a_name_that_would_not_be_told_apart_is_refused(name: str) -> None:
    """A transactional id is the stage, the machine and the slot, with dots in between."""
    with pytest.raises(ValidationError):
        KafkaSettings(node_id=name)
