"""`nearline export`, and who reads its folder: a training's feed is the same as from the events' own file. The training
itself would take ten seconds of a core; it begins with this feed."""

from pathlib import Path

import pytest

from nearline.commands._recorded_events import read_feed
from streams.settings import KafkaSettings
from tests.kit.commands import Commands
from tests.kit.data.events import write_events
from tests.kit.data.training_events import events


@pytest.mark.broker
def test_the_trainers_feed_of_what_was_exported_is_that_of_the_file(kafka: KafkaSettings, tmp_path: Path) -> None:
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
