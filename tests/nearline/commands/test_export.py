"""`nearline export`, and who reads its folder: a training, which learns the same from it as from the events' own
file."""

from pathlib import Path

import pytest

from encoders.package.model_package import ModelPackage
from nearline.commands._recorded_events import read_feed
from streams.settings import KafkaSettings
from tests.kit.commands import Commands
from tests.kit.data.events import write_events
from tests.kit.data.training_events import TEXTS_ALONE, events


@pytest.mark.broker
def test_what_was_exported_trains_a_package_as_the_events_file_does(kafka: KafkaSettings, tmp_path: Path) -> None:
    run = Commands()
    config = tmp_path / "nearline.toml"
    config.write_text(f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\n')
    sent = list(events(200))
    file, folder = write_events(tmp_path / "events.jsonl", sent), tmp_path / "recorded"
    assert run("ingest", file, "--config", config).status == 0
    assert run("export", "--out", folder, "--config", config).out == f"{len(sent)} events\n"
    assert run("export", "--out", folder, "--config", config).out == "0 events\n", "each event once"
    assert run("export", "--out", folder, "--since", "noon", "--config", config).status == 1
    exported, recorded = read_feed([str(folder)]), read_feed([str(file)])
    assert len(recorded.posts) == 200
    assert exported.posts == recorded.posts
    assert exported.positives == recorded.positives
    training, package = tmp_path / "train.toml", tmp_path / "package"
    training.write_text(TEXTS_ALONE)
    trained = run("train", "--events", folder, "--out", package, "--config", training, "--tokens", "1000")
    assert trained.status == 0, trained.err
    assert ModelPackage.load(package).manifest.training["tokens"] >= 1000
