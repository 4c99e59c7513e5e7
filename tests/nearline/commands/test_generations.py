"""`nearline generations list` and `show`, on a real broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from schemas import topics
from schemas.generations import Act, Canary, Gate, GateFigure, Pointer
from schemas.ids import Generation, Offset, Partition
from streams.generations.log import change_generations
from streams.settings import KafkaSettings
from tests.kit.commands import Commands
from tests.kit.data.generations import AT, founded, generation_record, next_records
from tests.kit.kafka.topics import Sender, produce

pytestmark = pytest.mark.broker

A, B = Generation("a-1"), Generation("b-2")
BUILDING = replace(
    generation_record("b-2", "building", "green"),
    goal={topics.POST_CONTEXTS: {Partition(0): Offset(4)}},
    history=[Act("build", AT, "host:7", "a new \x1b[31mmodel")],
)
READY = replace(
    BUILDING,
    state="ready",
    gate=Gate(
        AT,
        [
            GateFigure("recall of both tiers", 0.99, 0.995, False, "of 100 queries"),
            GateFigure("overlap", 0.4, None, True),
        ],
    ),
)


@pytest.fixture
def commands(kafka: KafkaSettings, tmp_path: Path) -> Iterator[Commands]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARLINE_KAFKA__BOOTSTRAP_SERVERS", str(kafka.bootstrap_servers))
        yield Commands(tmp_path)


def test_where_nothing_was_founded(commands: Commands) -> None:
    empty = {"serving": None, "kept": None, "canary": None, "generations": [], "contexts": [], "problems": []}
    assert commands("generations", "list", "--json").json == empty
    assert commands("generations", "list").out == "there is no generation yet\n"
    refused = commands("generations", "show", "a-1")
    assert (refused.status, refused.err) == (1, "nearline: there is no generation a-1; there are: none\n")


def test_what_is_being_built(commands: Commands, kafka: KafkaSettings) -> None:
    change_generations(kafka, next_records)
    change_generations(kafka, lambda _: [BUILDING])
    produce(kafka, topics.POST_CONTEXTS, 0, 4)
    listed = commands("generations", "list", "--json").json
    assert [(row["id"], row["state"], row["place"], row["package"]) for row in listed["generations"]] == [
        ("a-1", "serving", "blue", "/models/a-1"),
        ("b-2", "building", "green", "/models/b-2"),
    ]
    assert (listed["serving"], listed["kept"], listed["canary"]) == ("a-1", None, None)
    nothing_yet = {"done": 0, "goal": 4, "left_s": None, "share": 0.0}
    assert [row["progress"] for row in listed["generations"]] == [None, nothing_yet]
    assert [row["gate"] for row in listed["generations"]] == [None, None]
    lines = commands("generations", "list").out.splitlines()
    assert lines[0].split() == ["generation", "state", "place", "since", "progress", "gate", "package"]
    assert lines[2].split() == ["b-2", "building", "green", "2026-01-05T10:00:00Z", "0", "%", "-", "/models/b-2"]


def test_a_canary_its_gate_and_what_was_retired(commands: Commands, kafka: KafkaSettings) -> None:
    pointer = Pointer(A, canary=Canary(B, 0.05, AT))
    old = generation_record("old-0", "retired", None)
    change_generations(kafka, lambda _: [*founded().records.values(), READY, old, pointer])
    Sender(kafka).send(topics.GENERATIONS, [("pointer", b"???")])
    listed = commands("generations", "list", "--json").json
    assert listed["canary"] == {"generation": "b-2", "share": 0.05, "since": "2026-01-05T10:00:00Z"}
    assert [row["id"] for row in listed["generations"]] == ["a-1", "b-2", "old-0"]
    gate = listed["generations"][1]["gate"]
    assert (gate["at"], gate["holds"], gate["figures"][0]["bound"]) == ("2026-01-05T10:00:00Z", False, 0.995)
    assert "offset 5 of the topic generations is refused" in listed["problems"][0]
    out = commands("generations", "list").out
    assert "b-2 answers 5 % of the members as the canary, since 2026-01-05T10:00:00Z\n" in out
    assert "problem: the record at offset 5" in out


def test_one_generation_with_all_that_it_has(commands: Commands, kafka: KafkaSettings) -> None:
    change_generations(kafka, next_records)
    change_generations(kafka, lambda _: [READY])
    shown = commands("generations", "show", "b-2", "--json").json
    assert shown["groups"] == ["encode.b-2", "index.b-2"]
    assert shown["topics"] == [spec.name for spec in topics.generation_topics(B)]
    assert shown["collections"] == ["nearline-posts-b-2", "nearline-members-b-2"]
    assert (shown["digest"], shown["goal"]) == ("digest of b-2", {"post-contexts": {"0": 4}})
    assert shown["history"][0]["who"] == "host:7"
    out = commands("generations", "show", "b-2").out
    assert "groups       encode.b-2, index.b-2\n" in out
    assert "gate of 2026-01-05T10:00:00Z: does not hold\n" in out
    assert "recall of both tiers   0.990  0.995  no     of 100 queries\n" in out
    assert "2026-01-05T10:00:00Z  build  host:7  a new \\x1b[31mmodel\n" in out, "no control character"


def test_a_log_that_contradicts_itself_is_one_sentence(commands: Commands, kafka: KafkaSettings) -> None:
    Sender(kafka).send(topics.GENERATIONS, [("pointer", b'{"serving":"a-1"}')])
    done = commands("generations", "list")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("nearline: the topic generations contradicts itself: by the pointer a-1 is serving")
