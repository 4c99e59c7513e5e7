import json
from pathlib import Path

import pytest

from tests.nearline.site import Commands
from tests.packages import make_tiny_package
from tests.trainer.kit import events, write_events


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(monkeypatch, capsys)


def test_publish_compares_and_a_reason_is_kept(commands: Commands, tmp_path: Path) -> None:
    recorded = write_events(tmp_path / "events.jsonl", events())
    folder, registry = make_tiny_package(tmp_path / "tiny").folder, tmp_path / "registry"
    neither = commands("models", "publish", folder, "--registry", registry)
    assert (neither.status, neither.out) == (1, "")
    refused = commands("models", "publish", folder, "--registry", registry, "--events", recorded)
    assert refused.status == 1
    assert "--force REASON" in refused.err
    assert commands("models", "list", "--registry", registry).out.split() == [
        "generation", "published", "R@100", "forced", "because"
    ]  # fmt: skip
    forced = commands("models", "publish", folder, "--registry", registry, "--force", "the first one")
    generation = forced.json["generation"]
    assert "the first one" in commands("models", "list", "--registry", registry).out
    assert commands("models", "show", generation, "--registry", registry).json["gate"] == {"forced": "the first one"}
    assert commands("models", "verify", "--registry", registry).out == f"{generation} is whole\n"


def test_evaluate_prints_writes_and_draws(commands: Commands, tmp_path: Path) -> None:
    recorded = write_events(tmp_path / "events.jsonl", events())
    folder = make_tiny_package(tmp_path / "tiny").folder
    figures, picture = tmp_path / "figures.json", tmp_path / "recall.png"
    ran = commands("evaluate", folder, "--events", recorded, "--json", figures, "--picture", picture)
    assert ran.status == 0, ran.err
    assert "tf-idf titles" in ran.out
    found = json.loads(figures.read_bytes())
    assert [one["system"].partition("-")[0] for one in found["results"]][:2] == ["tiny", "tiny"]
    assert found["share_better"]["10"]["tf-idf acted"]["random acted"] > 0.9
    assert picture.read_bytes().startswith(b"\x89PNG")
