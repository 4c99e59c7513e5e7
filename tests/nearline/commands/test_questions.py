"""The commands that ask tiers and the retriever: retrieve, get, dump, vectors, status without a broker, doctor."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from nearline.settings.instance import ProcessInfo
from schemas.embeddings import unpack_vector
from tests.kit.commands import CommandResult, Commands
from tests.kit.instances import InstanceWithoutStages, instance_without_stages
from tests.kit.retrievers import asking_member, scored_post
from tests.kit.running import frozen
from tests.kit.waiting import until

LIGHT = ("ingest", "wait", "retrieve", "status", "get", "dump", "vectors", "dead_letters", "doctor")


@pytest.fixture(scope="module")
def place() -> Iterator[InstanceWithoutStages]:
    with instance_without_stages() as place:
        retriever = place.retriever
        retriever.in_cold(asking_member("m", acted=["a"], seen=["b"]), asking_member("gone", deleted=True, revision=4))
        retriever.in_both(
            scored_post("a", 0.9, author="x"),
            scored_post("b", 0.8, language="de"),
            scored_post("mine", 0.7, author="m"),
        )
        retriever.in_cold(scored_post("old", 0.6, revision=7, age_s=1e6), scored_post("dead", revision=3, deleted=True))
        yield place


@pytest.fixture
def run() -> Commands:
    return Commands()


@pytest.fixture
def ask(place: InstanceWithoutStages) -> "Asker":
    return Asker(place.data_dir)


class Asker(Commands):
    def ids(self, *arguments: str) -> list[str]:
        return [candidate["post_id"] for candidate in self("retrieve", *arguments, "--json").json["candidates"]]


def test_candidates_are_objects_with_exactly_these_keys(ask: Asker) -> None:
    answer = ask("retrieve", "--member", "m", "-k", "2", "--json").json
    assert list(answer) == ["generation", "partial", "reasons", "candidates", "counts", "timings_ms"]
    assert (answer["generation"], answer["partial"]) == ("test-0", False)
    assert [list(candidate) for candidate in answer["candidates"]] == [["post_id", "score", "tier"]] * 2
    assert answer["candidates"][0] == {"post_id": "a", "score": pytest.approx(0.9), "tier": "hot"}
    assert {"hot", "cold"} <= set(answer["counts"])
    assert answer["timings_ms"]["total"] > 0


def test_every_filter_reaches_the_retriever(ask: Asker) -> None:
    assert ask.ids("--member", "m") == ["a", "b", "old"]
    assert ask.ids("--member", "m", "--own-posts") == ["a", "b", "mine", "old"]
    assert ask.ids("--member", "m", "--hide-acted") == ["b", "old"]
    assert ask.ids("--member", "m", "--hide-seen") == ["a", "old"]
    assert ask.ids("--text", "x", "--language", "de") == ["b"]
    assert ask.ids("--text", "x", "--language", "de", "en", "-k", "1") == ["a"]
    assert ask.ids("--text", "x", "--language", "de", "--language", "en", "-k", "1") == ["a"]
    assert ask.ids("--text", "x", "--exclude-author", "x", "m", "--exclude-post", "old") == ["b"]
    assert "old" not in ask.ids("--text", "x", "--created-after", "2026-01-01T00:00:00+01:00")


def test_people_get_a_table(ask: Asker) -> None:
    ran = ask("retrieve", "--member", "m", "-k", "1", "--no-text")
    printed = ran.out.splitlines()
    assert printed[0].split() == ["rank", "score", "tier", "post"]
    assert printed[1].split() == ["1", "0.900", "hot", "a"]
    assert ran.err == ""


def test_texts_that_cannot_be_read_cost_a_note_and_nothing_else(ask: Asker) -> None:
    ran = ask("retrieve", "--member", "m", "-k", "1")
    printed = ran.out.splitlines()
    assert printed[0].split() == ["rank", "score", "tier", "post", "text"]
    assert printed[1].split() == ["1", "0.900", "hot", "a", "-"]
    assert ran.status == 0
    assert ran.err.startswith("nearline: the texts cannot be shown: ")
    assert ran.err.count("\n") == 1


WRONG_OPTION = 'kafka.options: No such configuration property: "security.protocl"'


@pytest.fixture
def with_wrong_option(run: Commands, place: InstanceWithoutStages, tmp_path: Path) -> Callable[..., CommandResult]:
    config = tmp_path / "own.toml"
    config.write_text('[kafka]\nbootstrap_servers = "127.0.0.1:1"\noptions = {"security.protocl" = "ssl"}\n')
    return lambda *arguments: run(*arguments, "--data-dir", place.data_dir, "--config", config)


@pytest.mark.parametrize(
    "command",
    [
        ("wait",),
        ("dead-letters", "list"),
        ("dead-letters", "drop", "--all"),
        ("contexts", "rebuild"),
        ("get", "post", "a"),
        ("ingest",),
        ("export", "--out"),
    ],
)
def test_a_wrong_option_of_kafka_is_one_sentence(
    with_wrong_option: Callable[..., CommandResult], tmp_path: Path, command: tuple[str, ...]
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("")
    paths = {"ingest": [file], "export": [tmp_path / "out"]}
    ran = with_wrong_option(*command, *paths.get(command[0], []))
    assert (ran.status, ran.err) == (1, f"nearline: {WRONG_OPTION}\n")


def test_a_wrong_option_of_kafka_costs_status_and_candidates_one_part(
    with_wrong_option: Callable[..., CommandResult],
) -> None:
    assert f"broker: {WRONG_OPTION}" in with_wrong_option("status", "--json").json["problems"]
    ran = with_wrong_option("retrieve", "--member", "m", "-k", "1")
    assert ran.out.splitlines()[1].split() == ["1", "0.900", "hot", "a", "-"]
    assert ran.err == f"nearline: the texts cannot be shown: {WRONG_OPTION}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "give exactly one of --member and --text"),
        (("--member", "m", "--text", "x"), "give exactly one of --member and --text"),
        (("--text", "x", "--created-after", "noon"), "is not an RFC 3339 time"),
        (
            ("--text", "x", "--language", "english"),
            "languages.0: is not a valid language tag; send a tag such as en or pt-BR",
        ),
        (("--text", "x", "-k", "2049"), "give a whole number from 1 to 2048"),
        (("--text", ""), "text: "),
        (("--text", "  "), "text: there is nothing to encode"),
    ],
)
def test_a_wrong_question_is_one_sentence(ask: Asker, arguments: tuple[str, ...], sentence: str) -> None:
    ran = ask("retrieve", *arguments)
    assert (ran.status, ran.out) == (1, "")
    assert sentence in ran.err
    assert ran.err.count("\n") == 1


def test_vectors_are_those_of_the_cold_tier(ask: Asker) -> None:
    lines = ask("vectors", "post", "old", "a").lines
    assert [(line["id"], line["revision"]) for line in lines] == [("old", 7), ("a", 1)]
    assert list(lines[0]) == ["id", "revision", "vector"]
    stored = unpack_vector(scored_post("old", 0.6).vector)
    assert np.array_equal(np.array(lines[0]["vector"], np.float32), stored), "no digit may get lost on the way"
    assert ask("vectors", "member", "m").lines[0]["id"] == "m"


def test_an_id_without_a_vector_is_named(ask: Asker) -> None:
    ran = ask("vectors", "post", "a", "dead", "never")
    assert [line["id"] for line in ran.lines] == ["a"]
    assert (ran.status, ran.err) == (1, "nearline: the cold tier has no vector of post dead, never\n")


@pytest.mark.parametrize("command", [("get", "post"), ("get", "member"), ("vectors", "post")])
def test_an_id_that_is_not_utf_8_is_one_sentence(ask: Asker, command: tuple[str, ...]) -> None:
    ran = ask(*command, "p\udcff")
    assert (ran.status, ran.out) == (1, "")
    assert "'p\\udcff' is not UTF-8, so nothing has this id" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(("tier", "ids"), [("cold", {"a", "b", "mine", "old"}), ("hot", {"a", "b", "mine"})])
def test_a_dump_is_all_that_is_live(ask: Asker, tier: str, ids: set[str]) -> None:
    lines = ask("dump", "posts", "--tier", tier).lines
    assert {line["post_id"] for line in lines} == ids
    first = next(line for line in lines if line["post_id"] == "a")
    assert first == {"post_id": "a", "revision": 1, "author_id": "x", "created_at": "2026-01-05T07:59:00Z"}


def test_status_says_what_it_knows_while_the_broker_is_away(ask: Asker) -> None:
    started = time.monotonic()
    answer = ask("status", "--json").json
    assert time.monotonic() - started < 30, "librdkafka's own time is a minute"
    keys = ["ready", "generation", "processes", "stages", "tiers", "dead_letters", "freshness_s", "problems"]
    assert list(answer) == [*keys, "standing_still"]
    assert answer["generation"] == "test-0"
    assert answer["processes"] == [
        {"name": "broker", "pid": 1, "restarts": 0},
        {"name": "serve", "pid": 2, "restarts": 3},
    ]
    assert {stage["lag"] for stage in answer["stages"]} == {None}
    assert list(answer["stages"][0]) == ["stage", "group", "topic", "lag", "oldest_age_s", "deleted_unread"]
    assert answer["tiers"] == {"cold": {"posts": 4, "members": 1}, "hot": {"posts": 3}}
    assert list(answer["freshness_s"]) == ["p50", "p99", "newest_age_s"]
    assert (answer["freshness_s"]["p50"], answer["freshness_s"]["p99"]) == (0.5, 0.5)
    assert answer["dead_letters"] is None
    assert [problem.split(":")[0] for problem in answer["problems"]] == ["broker"]


def test_status_without_a_cold_process_and_a_retriever(ask: Asker, place: InstanceWithoutStages) -> None:
    place.rewrite(cold_socket="/nowhere", url=None)
    try:
        answer = ask("status", "--json").json
    finally:
        place.rewrite()
    assert not answer["ready"]
    assert answer["tiers"] == {"cold": {"posts": None, "members": None}, "hot": {"posts": None}}
    assert {problem.split(":")[0] for problem in answer["problems"]} == {"broker", "cold tier", "retriever"}


def _numbers(ran: CommandResult) -> dict[str, str]:
    """The last word of each line of a status, by what stands before it."""
    return dict(re.findall(r"^(.*\S)  +(\S+)$", ran.out, re.MULTILINE))


def test_status_names_a_stopped_process_without_a_monitor(ask: Asker, place: InstanceWithoutStages) -> None:
    sleeper = subprocess.Popen(["sleep", "600"])
    place.rewrite(processes=[ProcessInfo("encode-blue-0", sleeper.pid, 0)], monitor="http://127.0.0.1:1")
    try:
        with frozen(sleeper.pid):
            # The newest change takes the place of the freshness that was measured once it is older than that.
            until(lambda: float(_numbers(ask("status"))["newest change, s ago"]) > 0.5, "it to be older", every_s=0.1)
            ran = ask("status")
    finally:
        place.rewrite()
        sleeper.kill()
        sleeper.wait()
    lines = ran.out.splitlines()
    assert (ran.status, lines[0]) == (0, "standing still, generation test-0")
    assert lines[1].startswith("standing still: ")
    assert f"encode-blue-0 (pid {sleeper.pid}) is stopped by a signal" in lines[1]
    numbers = _numbers(ran)
    assert numbers["freshness p50, s"] == numbers["freshness p99, s"] == numbers["newest change, s ago"]
    assert any(line.startswith("problem: monitor: the monitor does not answer at ") for line in lines)


def test_status_for_people(ask: Asker) -> None:
    """What is wrong comes before the tables."""
    lines = ask("status").out.splitlines()
    assert lines[0] == "ready, generation test-0"
    assert lines[1].startswith("problem: broker: ")
    assert lines[2] == ""
    assert "cold posts" in [line.rsplit("  ", 1)[0].strip() for line in lines[3:]]


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("retrieve", "--member", "m"),
        ("wait",),
        ("get", "post", "a"),
        ("dump", "posts", "--tier", "cold"),
        ("vectors", "post", "a"),
        ("dead-letters", "list"),
    ],
)
def test_without_an_instance_the_mend_is_said(run: Commands, tmp_path: Path, command: tuple[str, ...]) -> None:
    ran = run(*command, "--data-dir", tmp_path)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == f"nearline: nothing runs on {tmp_path}; start it with: nearline up --data-dir {tmp_path}\n"


def test_a_retriever_elsewhere_needs_no_data_folder(
    run: Commands, place: InstanceWithoutStages, tmp_path: Path
) -> None:
    config = tmp_path / "nearline.toml"
    serve = f'url = "{place.instance.url}"\ngrpc_url = "http://{place.instance.grpc}"'
    config.write_text(f'[serve]\n{serve}\n[kafka]\nbootstrap_servers = "127.0.0.1:1"\n')
    elsewhere = ("--data-dir", tmp_path / "none", "--config", config)
    assert run("retrieve", "--member", "m", "--json", *elsewhere).json["generation"] == "test-0"
    answer = run("status", "--json", *elsewhere).json
    assert (answer["ready"], answer["generation"], answer["processes"]) == (True, "test-0", [])
    assert answer["tiers"]["hot"] == {"posts": 3}


def test_doctor_has_a_line_for_each_thing(ask: Asker) -> None:
    ran = ask("doctor")
    lines = {line[4:].split("  ")[0].strip(): line[:2] for line in ran.out.splitlines()}
    assert lines["Python"] == "ok"
    assert lines["data folder"] == "ok"
    assert (lines["retriever"], lines["cold tier"]) == ("ok", "ok")
    assert (lines["broker"], ran.status) == ("no", 1)


def test_doctor_is_content_where_nothing_runs(run: Commands, tmp_path: Path) -> None:
    ran = run("doctor", "--data-dir", tmp_path)
    assert "--  broker" in ran.out
    assert "nearline up" in ran.out


def test_no_command_that_only_asks_loads_a_model_or_a_search_library() -> None:
    heavy = "{'torch', 'faiss', 'transformers', 'sentence_transformers', 'qdrant_client', 'fastapi'}"
    imports = "; ".join(f"import nearline.commands.{name}" for name in LIGHT)
    # What they import when they are called.
    parts = "import nearline.ask.connections, nearline.ask.status_sources, nearline.ask.doctor, streams.operate.wait"
    parts += ", streams.operate.ingest, indexer.cold.socket.client, retriever.client, nearline.client.client"
    parts += ", streams.operate.dead_letter_replay"
    code = f"import sys; {imports}; {parts}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
