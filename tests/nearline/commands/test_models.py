import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from encoders.package.manifest import TokenLimits
from schemas import topics
from schemas.generations import PackageSource
from streams.generations.models import read_models
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.commands import Commands
from tests.kit.data.events import write_events
from tests.kit.data.training_events import events, invented_events, with_impressions
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import Sender
from tests.kit.packages import make_tiny_package
from trainer.publishing.registry import Registry


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Where no instance runs."""
    monkeypatch.setenv("NEARLINE_DATA_DIR", str(tmp_path / "data"))
    return Commands()


def test_publish_compares_and_a_reason_is_kept(commands: Commands, tmp_path: Path) -> None:
    recorded = write_events(tmp_path / "events.jsonl", events())
    folder, registry = make_tiny_package(tmp_path / "tiny").folder, tmp_path / "registry"
    neither = commands("models", "publish", folder, "--registry", registry)
    assert (neither.status, neither.out) == (1, "")
    refused = commands("models", "publish", folder, "--registry", registry, "--events", recorded)
    assert refused.status == 1
    assert "--force REASON" in refused.err
    assert not registry.exists()
    forced = commands("models", "publish", folder, "--registry", registry, "--force", "the first one")
    generation = forced.out.split()[0]
    assert forced.out == (f"{generation} is published in {registry}: without a comparison, because: the first one\n")
    assert forced.err.startswith("note: it is not announced, because no broker is configured")
    assert "the first one" in commands("models", "list", "--registry", registry).out
    shown = commands("models", "show", generation, "--registry", registry)
    assert "why         without a comparison, because: the first one\n" in shown.out
    as_json = commands("models", "show", generation, "--registry", registry, "--json").json
    assert (as_json["generation"], as_json["gate"]) == (generation, {"forced": "the first one"})
    assert commands("models", "verify", "--registry", registry).out == f"{generation} is whole\n"


def test_the_same_package_is_told_before_it_is_compared(commands: Commands, tmp_path: Path) -> None:
    folder, registry = make_tiny_package(tmp_path / "tiny").folder, tmp_path / "registry"
    commands("models", "publish", folder, "--registry", registry, "--force", "the first one")
    # There is nothing to compare with: the events are not read.
    again = commands("models", "publish", folder, "--registry", registry, "--events", tmp_path / "nothing")
    assert (again.status, again.out.count("\n")) == (0, 1)
    assert again.out.endswith("and nothing was compared now: without a comparison, because: the first one\n")
    assert again.err.startswith("note: it is not announced, because no broker is configured")
    as_json = commands("models", "publish", folder, "--registry", registry, "--force", "again", "--json").json
    assert (as_json["already"], as_json["announced"], as_json["gate"]) == (True, False, {"forced": "the first one"})


@pytest.mark.broker
def test_what_is_published_is_announced_and_again_if_it_is_published_again(
    commands: Commands, tmp_path: Path, clean_topics: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_KAFKA__BOOTSTRAP_SERVERS", str(clean_topics.bootstrap_servers))
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers)
    package, registry = make_tiny_package(tmp_path / "tiny"), tmp_path / "registry"
    publish = ("models", "publish", package.folder, "--registry", registry, "--force", "the first one")
    # Whoever published it was killed before the announcement.
    published = Registry(str(registry)).publish(package, {"forced": "the first one"})
    for _ in range(2):
        told = commands(*publish).out
        assert told.startswith(f"{package.generation} was published in {registry} already, at {published.published_at}")
        assert "nothing was compared now" in told
        assert told.endswith("because: the first one\nit is announced on the topic models\n")
    announced = read_models(kafka)
    assert list(announced.models) == [package.generation]
    record = announced.models[package.generation]
    assert (record.digest, record.package) == (package.digest, PackageSource(registry=str(registry)))
    assert record.published_at == datetime.fromisoformat(published.published_at)
    as_json = commands(*publish, "--json").json
    assert (as_json["already"], as_json["announced"]) == (True, True)
    # A damaged record hides nothing, and a tombstone takes the announcement back.
    Sender(kafka).send(topics.MODELS, [(package.generation, b"???"), ("other-1", None)])
    assert read_models(kafka).models == {package.generation: record}
    assert "the record at offset 3 of the topic models is refused" in read_models(kafka).problems[0]
    Sender(kafka).send(topics.MODELS, [(package.generation, None)])
    assert read_models(kafka).models == {}


@pytest.mark.broker
def test_a_package_that_is_published_and_cannot_be_announced_is_said(
    commands: Commands, tmp_path: Path, clean_topics: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_KAFKA__BOOTSTRAP_SERVERS", str(clean_topics.bootstrap_servers))
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers)
    ensure_topics(kafka, [topics.MODELS_SPEC._replace(partitions=3)])
    package, registry = make_tiny_package(tmp_path / "tiny"), tmp_path / "registry"
    refused = commands("models", "publish", package.folder, "--registry", registry, "--force", "the first one")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith(f"nearline: {package.generation} is published, but it is not announced on the topic")
    assert Registry(str(registry)).is_published(package.generation)


def test_a_missing_registry_is_said_and_an_empty_one_too(commands: Commands, tmp_path: Path) -> None:
    missing = commands("models", "list", "--registry", tmp_path / "modles")
    assert (missing.status, missing.out) == (1, "")
    assert missing.err.startswith(f"nearline: there is no registry {tmp_path / 'modles'}; mend the path")
    assert not (tmp_path / "modles").exists()
    assert commands("models", "list", "--registry", tmp_path).out == f"nothing is published in {tmp_path}\n"


def test_a_url_with_one_slash_is_no_folder(commands: Commands) -> None:
    refused = commands("models", "list", "--registry", "s3:/bucket/models")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith("nearline: the registry s3:/bucket/models is neither a URL nor a folder; write a URL")


def test_publish_compares_with_the_package_that_serves(commands: Commands, tmp_path: Path) -> None:
    """The one that serves reads the first token of a text, so that the other one finds more."""
    recorded = write_events(tmp_path / "events.jsonl", invented_events())
    until = {"until": "2026-01-09T00:00:00Z"}
    blind = TokenLimits(post=3, member=16)
    serving = make_tiny_package(tmp_path / "serving", token_limits=blind, training=until)
    worse = make_tiny_package(tmp_path / "worse", token_limits=blind, seed=1)
    better = make_tiny_package(tmp_path / "better")
    registry = ("--registry", tmp_path / "registry")
    assert commands("models", "publish", serving.folder, *registry, "--force", "the first one").status == 0
    refused = commands("models", "publish", worse.folder, *registry, "--events", recorded)
    assert (refused.status, refused.out) == (1, "")
    assert f"and that of {serving.generation} is" in refused.err
    gate = commands("models", "publish", better.folder, *registry, "--events", recorded, "--json").json["gate"]
    assert gate["against"].startswith(str(serving.generation))
    assert (gate["from"], gate["recall"] > gate["recall_before"]) == (until["until"], True)
    assert len(commands("models", "list", *registry).out.splitlines()) == 3
    shown = commands("models", "show", better.generation, *registry).out
    assert "; the untrained start is not measured: it was not made from nothing, and only --baseline START" in shown


@pytest.mark.parametrize("which", ["serving", "new"])
def test_publish_wants_actions_newer_than_both_trainings(commands: Commands, tmp_path: Path, which: str) -> None:
    recorded = write_events(tmp_path / "events.jsonl", events(num_posts=10))
    until = {"until": "2027-01-01T00:00:00Z"}
    serving = make_tiny_package(tmp_path / "serving", training=until if which == "serving" else None)
    new = make_tiny_package(tmp_path / "new", seed=1, training=until if which == "new" else None)
    registry = ("--registry", tmp_path / "registry")
    assert commands("models", "publish", serving.folder, *registry, "--force", "the first one").status == 0
    ran = commands("models", "publish", new.folder, *registry, "--events", recorded)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == (
        "nearline: no action is newer than 2027-01-01T00:00:00Z, until when a package was trained; give newer events\n"
    )


def test_evaluate_prints_writes_and_draws(commands: Commands, tmp_path: Path) -> None:
    recorded = write_events(tmp_path / "events.jsonl", with_impressions(events()))
    folder = make_tiny_package(tmp_path / "tiny").folder
    figures, picture = tmp_path / "figures.json", tmp_path / "recall.png"
    refused = commands("evaluate", folder, "--events", recorded, "--baseline", tmp_path)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith(f"nearline: {tmp_path} has no modules.json")
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    (other / "nearline.json").unlink()
    more = ("--baseline", other, "--json", figures, "--picture", picture)
    ran = commands("evaluate", folder, "--events", recorded, *more)
    assert ran.status == 0, ran.err
    assert "is not measured: it was not made from nothing, and only --baseline START" in ran.err
    assert "AUC of a logistic ranker" in ran.out
    assert "tf-idf titles" in ran.out
    report = json.loads(figures.read_bytes())
    assert [result["system"].partition("-")[0] for result in report["results"]][:2] == ["tiny", "tiny"]
    assert report["share_better"]["10"]["other acted"]["random acted"] > 0.9
    assert list(report["as_a_feature"]) == [report["results"][0]["system"]]
    assert report["share_better"]["10"]["tf-idf acted"]["random acted"] > 0.9
    assert picture.read_bytes().startswith(b"\x89PNG")
