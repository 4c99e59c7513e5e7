"""`nearline generations gate`, on a real broker without an instance: what cannot be measured never passes."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from nearline.gate import gate
from nearline.gate.gate import CHECKS
from nearline.gate.names import RECALL
from schemas import topics
from schemas.contexts import encode_context
from schemas.generations import PackageSource, Pointer
from schemas.ids import Generation
from streams.generations import acts
from streams.generations.log import change_generations, read_generations
from streams.settings import KafkaSettings
from tests.kit.commands import Commands
from tests.kit.data.contexts import post_context
from tests.kit.data.events import activity, post_created, write_events
from tests.kit.data.generations import AT, founded, generation_record
from tests.kit.kafka.topics import Sender
from tests.kit.packages import make_tiny_package
from trainer.evaluation.next_actions import MIN_ACTIONS_BEFORE

pytestmark = pytest.mark.broker

READY = replace(generation_record("b-2", "ready", "green"), begun=AT)


@pytest.fixture
def commands(kafka: KafkaSettings, tmp_path: Path) -> Iterator[Commands]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARLINE_KAFKA__BOOTSTRAP_SERVERS", str(kafka.bootstrap_servers))
        patch.setenv("NEARLINE_GENERATIONS__SETTLE_S", "0")
        patch.setenv("NEARLINE_GENERATIONS__SOAK_S", "0.5")
        yield Commands(tmp_path)


def test_what_fails_and_what_cannot_be_measured_is_said_and_recorded(
    commands: Commands, kafka: KafkaSettings, tmp_path: Path
) -> None:
    change_generations(kafka, lambda _: [*founded().records.values(), founded().pointer, READY])  # type: ignore[list-item]
    Sender(kafka).send(topics.POST_CONTEXTS, [("p1", encode_context(post_context(post_id="p1")))])
    file = tmp_path / "gate.json"
    done = commands("generations", "gate", "b-2", "--json", file, "--by", "me")
    assert done.status == 1
    assert done.out.splitlines()[0].split() == ["check", "figure", "bound", "holds", "note"]
    assert "1 missing such as p1" in done.out
    written = msgspec.json.decode(file.read_bytes())
    assert (written["generation"], written["holds"]) == ("b-2", False)
    figures = {figure["name"]: figure for figure in written["figures"]}
    assert list(figures) == [name for check in CHECKS for name in check.names]
    assert not any(figure["holds"] for figure in figures.values())
    assert figures["vectors in the cold tier"]["note"].startswith("not measured: nothing runs on ")
    shown = commands("generations", "show", "b-2", "--json").json
    assert [figure["name"] for figure in shown["gate"]["figures"]] == list(figures)
    assert (shown["history"][-1]["what"], shown["history"][-1]["who"]) == ("gate", "me")
    refused = commands("generations", "promote", "b-2")
    assert (refused.status, refused.out) == (1, "")
    assert "the gate of the generation b-2 does not hold: vectors in the log (1, bound 0)" in refused.err


def test_recall_is_measured_on_recorded_events_with_the_rules_of_the_instance(
    commands: Commands, kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the rules that nearline comes with, a dwell of a second is no positive action. The topics hold no event."""
    a, b = (make_tiny_package(tmp_path / name, hidden=16, layers=1, seed=seed) for seed, name in enumerate("ab"))
    serving, ready = (
        replace(record, id=package.generation, package=PackageSource(folder=str(package.folder)), digest=package.digest)
        for record, package in ((generation_record("a-1"), a), (READY, b))
    )
    change_generations(kafka, lambda _: [serving, ready, Pointer(serving.id)])
    posts = [f"p{number}" for number in range(MIN_ACTIONS_BEFORE + 3)]
    files = {
        "first.jsonl": [post_created(post_id, at=AT) for post_id in posts],
        "second.jsonl": [
            activity("m1", post_id, "dwell", dwell_ms=1_000, at=AT + timedelta(minutes=minute))
            for minute, post_id in enumerate(posts, 1)
        ],
    }
    options = [
        option for name, events in files.items() for option in ("--events", write_events(tmp_path / name, events))
    ]
    monkeypatch.setattr(gate, "CHECKS", [check for check in CHECKS if check.names == RECALL])
    monkeypatch.setenv("NEARLINE_RULES__POSITIVE_DWELL_MS", "1000")
    file = tmp_path / "gate.json"
    assert commands("generations", "gate", ready.id, *options, "--json", file).status == 1
    notes = {figure["name"]: figure["note"] for figure in msgspec.json.decode(file.read_bytes())["figures"]}
    assert notes.keys() == set(RECALL)
    assert all(note.startswith("not measured: there are 3 actions of 1 members on posts") for note in notes.values())


def test_only_what_is_ready_or_kept_is_measured(commands: Commands, kafka: KafkaSettings) -> None:
    refused = commands("generations", "gate", "a-1")
    assert refused.err == "nearline: there is no generation a-1; there are: none\n"
    building = replace(READY, state="building")
    change_generations(kafka, lambda _: [*founded().records.values(), founded().pointer, building])  # type: ignore[list-item]
    for generation, words in (("a-1", "is serving"), ("b-2", "is building")):
        refused = commands("generations", "gate", generation)
        assert refused.status == 1
        assert words in refused.err
    assert read_generations(kafka).records[Generation("b-2")].gate is None


@pytest.mark.parametrize("option", ["--events", "--json"])
def test_a_path_that_leads_nowhere_is_refused_before_anything_is_measured(
    commands: Commands, kafka: KafkaSettings, tmp_path: Path, option: str
) -> None:
    """A gate that held would count no more."""
    change_generations(kafka, lambda _: [*founded().records.values(), founded().pointer, READY])  # type: ignore[list-item]
    nowhere = tmp_path / "nowhere"
    refused = commands("generations", "gate", "b-2", option, nowhere / "file")
    assert (refused.status, refused.out) == (1, "")
    assert option in refused.err
    assert str(nowhere) in refused.err
    assert read_generations(kafka).records[Generation("b-2")].gate is None


def test_a_generation_that_was_built_again_meanwhile_gets_no_gate(kafka: KafkaSettings) -> None:
    from nearline.commands._generation_gate import record_gate
    from schemas.generations import Gate
    from streams.errors import ActRefused

    newer = replace(READY, begun=AT + timedelta(seconds=1))
    change_generations(kafka, lambda _: [*founded().records.values(), founded().pointer, newer])  # type: ignore[list-item]
    with pytest.raises(ActRefused, match="was built again while it was measured"):
        record_gate(kafka, READY, Gate(AT, []), acts.acting("me"))
