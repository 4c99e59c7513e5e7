"""What an operator sees and does."""

import json
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from nearline.monitor.report import ask_monitor
from nearline.pipeline import Pipeline
from retriever.client import RetrieverClient
from schemas.api import RetrieveRequest
from tests.e2e.conftest import Running
from tests.kit.data.events import activity, ago, post_created
from tests.kit.waiting import until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

STAGE_KEYS = {"stage", "group", "topic", "lag", "oldest_age_s", "deleted_unread"}
SEARCHABLE_S = 20.0
"""Seconds where the machine is ours; tests share it."""


def test_a_fresh_post_is_searchable_within_seconds(
    pipeline: Pipeline, client: RetrieverClient, unique: Callable[[str], str]
) -> None:
    post_id, text = unique("fresh"), "a walrus plays the banjo in an abandoned observatory"
    pipeline.ingest([post_created(post_id, text)])
    request = RetrieveRequest(text=text, k=1)
    until(lambda: client.retrieve(request).post_ids == [post_id], f"{post_id} to be searchable", SEARCHABLE_S)


def test_an_old_post_that_comes_in_now_is_in_both_tiers(pipeline: Pipeline, unique: Callable[[str], str]) -> None:
    """What counts for the hot tier is when a post changed."""
    post_id = unique("old")
    pipeline.ingest([post_created(post_id, "an old story", at=ago(days=30))])
    pipeline.wait()
    answer = pipeline.ask("get", "post", post_id)
    assert answer["cold"]["present"] is True
    assert answer["hot"]["present"] is True


def test_status_says_everything(running: Running) -> None:
    pipeline = running.pipeline
    pipeline.wait()
    status = pipeline.ask("status")
    assert status["ready"] is True, status
    assert status["generation"] == pipeline.instance.generation
    processes = {process["name"]: process for process in status["processes"]}
    assert set(processes) == {"broker", "contexts-0", "trending", "monitor", "encode-blue-0", "cold-blue", "serve"}
    assert all(psutil.pid_exists(process["pid"]) for process in processes.values())
    restarts = {name: process["restarts"] for name, process in processes.items()}
    # Another test may have stopped a stage for so long that it was killed.
    assert restarts == {process.name: process.restarts for process in pipeline.instance.processes}
    assert {stage["stage"] for stage in status["stages"]} == {"contexts", "trending", "encode", "index", "hot-feed"}
    assert all(set(stage) == STAGE_KEYS for stage in status["stages"])
    behind = {stage["topic"]: stage["lag"] for stage in status["stages"] if stage["stage"] != "trending"}
    assert set(behind.values()) == {0}, behind
    live = len(running.world.truth.subject_of) - len(running.world.truth.deleted_posts)
    assert status["tiers"]["cold"]["posts"] >= live
    assert status["tiers"]["cold"]["members"] > 0
    assert 0 < status["tiers"]["hot"]["posts"] < status["tiers"]["cold"]["posts"]
    assert status["dead_letters"] == 0
    assert set(status["freshness_s"]) == {"p50", "p99", "newest_age_s"}


@pytest.mark.parametrize("name", ["encode-blue-0", "trending"])
def test_a_stage_that_stands_still_is_named_within_ten_seconds(
    pipeline: Pipeline, unique: Callable[[str], str], name: str
) -> None:
    pipeline.ingest([post_created(unique("measured"), "measured")])  # at its start an instance knows no freshness
    pipeline.wait()
    stage, monitor = name.partition("-")[0], pipeline.instance.monitor
    assert monitor is not None
    until(lambda: ask_monitor(monitor, 10).ready, "the monitor to find everything in order", 120, 0.2)
    (pid,) = (process.pid for process in pipeline.instance.processes if process.name == name)
    process = psutil.Process(pid)
    process.suspend()
    try:
        until(lambda: _named(monitor) == {stage}, f"{stage} to be named", 10, 0.2)
        pipeline.ingest([post_created(unique("waits"), "waits"), activity("waits", unique("waits"))])
        until(lambda: _num_waiting(monitor, stage) > 0, "the lag of the stage to be seen", SEARCHABLE_S, 0.2)
        status, printed = pipeline.ask("status"), pipeline.run("status")
        with pipeline.client() as retriever:
            beginning = f"{stage} of " if stage == "encode" else f"{stage} has stood still for "
            until(lambda: _told(retriever, beginning), "the retriever to say it too", 30, 0.2)
            assert retriever.ready().ready, "which still answers"
        assert status["ready"] is False
        assert any(f"{name} (pid {pid}) is stopped by a signal, and " in each for each in status["standing_still"])
        # While the transaction with the newest of them is open, nobody can read how old they are.
        until(lambda: _tells_ages(pipeline.ask("status"), stage), "the age of what waits to be told", 30, 0.2)
        fresh = status["freshness_s"]
        assert stage == "trending" or fresh["p50"] >= fresh["newest_age_s"], "nothing becomes searchable"
        assert printed.startswith("standing still, generation ")
        assert printed.splitlines()[1].startswith("standing still: "), "before all tables"
    finally:
        process.resume()
    pipeline.wait()
    until(lambda: ask_monitor(monitor, 10).ready, "all of it to be in order again", 60, 0.2)
    assert pipeline.ask("status")["standing_still"] == []


def _told(retriever: RetrieverClient, beginning: str) -> bool:
    return any(sentence.startswith(beginning) for sentence in retriever.ready().standing_still)


def _named(monitor: str) -> set[str]:
    return {standing.stage for standing in ask_monitor(monitor, 10).standing_still}


def _num_waiting(monitor: str, stage: str) -> int:
    """In how many topics a record waits for the stage."""
    ages_s = ask_monitor(monitor, 10).oldest_age_s
    return sum(len(topics) for group, topics in ages_s.items() if group.partition(".")[0] == stage)


def _tells_ages(status: dict[str, Any], stage: str) -> bool:
    ages_s = [row["oldest_age_s"] for row in status["stages"] if row["stage"] == stage and row["lag"]]
    return bool(ages_s) and None not in ages_s


def _metrics(address: str) -> list[str]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        return answer.read().decode().splitlines()


def _has_counted(address: str, counter: str) -> bool:
    return any(line.startswith(counter) and float(line.split()[1]) > 0 for line in _metrics(address))


def test_prometheus_finds_every_process_that_has_metrics(running: Running, unique: Callable[[str], str]) -> None:
    folder = running.pipeline.data_dir / "metrics"
    post_id = unique("counted")  # else there may be nothing to count
    running.pipeline.ingest([post_created(post_id, "counted"), activity(unique("member"), post_id)])
    names = {"contexts-0", "trending", "encode-blue-0", "cold-blue", "serve", "monitor"}
    # The instance is ready when the retriever is; the encode process may still be loading its model.
    until(lambda: {file.stem for file in folder.glob("*.json")} == names, "six processes to name their address", 120)
    files = {name: json.loads((folder / f"{name}.json").read_bytes()) for name in names}
    for name, counter in (
        ("contexts-0", "nearline_contexts_records_total"),
        ("trending", "nearline_trending_records_total"),
        ("encode-blue-0", "nearline_encode_tokens_total"),
        ("cold-blue", "nearline_cold_oldest_erasure_seconds"),
        ("serve", "nearline_hot_posts"),
        ("monitor", "kafka_topic_partition_current_offset"),
    ):
        (group,) = files[name]
        assert group["labels"] == {"process": name}
        address = group["targets"][0]
        until(partial(_has_counted, address, counter), f"{counter} of {name} to be above 0", 120)
        lines = _metrics(address)
        series = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
        assert len(series) == len(set(series)), "Prometheus refuses a page that says something twice"


def test_a_bad_line_is_named_and_nothing_of_its_file_is_sent(
    pipeline: Pipeline, client: RetrieverClient, unique: Callable[[str], str], tmp_path: Path
) -> None:
    post_id, file = unique("unsent"), tmp_path / "bad.jsonl"
    good = post_created(post_id, "good")
    file.write_text(f'{_json(good)}\n{{"type": "post.created"}}\n')
    refused = pipeline.attempt("ingest", file)
    assert refused.returncode == 1
    assert f"{file}:2: " in refused.stderr
    assert "Traceback" not in refused.stderr
    pipeline.wait()
    assert client.post(post_id).cold.present is False


def test_an_instance_that_starts_again_has_kept_everything(running: Running) -> None:
    pipeline, member_id = running.pipeline, next(iter(running.world.truth.interests))
    pipeline.wait()
    before = _seen(pipeline, member_id)
    pipeline.stop()
    pipeline.start()
    until(lambda: _seen(pipeline, member_id) == before, "the same answers as before the restart", 60, every_s=0.5)


def test_wait_gives_up_in_time(pipeline: Pipeline) -> None:
    began = time.monotonic()
    done = pipeline.attempt("wait", "--timeout", "0")
    assert done.returncode in (0, 1)
    assert time.monotonic() - began < 30


def _seen(pipeline: Pipeline, member_id: str) -> object:
    with pipeline.client() as client:
        tiers = client.status().tiers
        answer = client.retrieve(RetrieveRequest(member_id=member_id))
    return tiers.cold, answer.post_ids, answer.scores, {reason.code for reason in answer.reasons}


def _json(event: object) -> str:
    return json.dumps(event)
