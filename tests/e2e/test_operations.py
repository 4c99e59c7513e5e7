"""What an operator sees and does."""

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nearline.pipeline import Pipeline
from retriever.client import RetrieverClient
from schemas.api import RetrieveRequest
from tests.e2e.conftest import Running
from tests.kit.data.events import ago, post_created
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
    assert set(processes) == {"broker", "contexts-0", "trending", "encode-blue-0", "cold-blue", "serve"}
    assert all(psutil.pid_exists(process["pid"]) and process["restarts"] == 0 for process in processes.values())
    assert {stage["stage"] for stage in status["stages"]} == {"contexts", "trending", "encode", "index", "hot-feed"}
    assert all(set(stage) == STAGE_KEYS for stage in status["stages"])
    behind = {stage["topic"]: stage["lag"] for stage in status["stages"] if stage["stage"] != "trending"}
    assert set(behind.values()) == {0}, behind
    live = len(running.world.truth.subject_of) - len(running.world.truth.deleted_posts)
    assert status["tiers"]["cold"]["posts"] >= live
    assert status["tiers"]["cold"]["members"] > 0
    assert 0 < status["tiers"]["hot"]["posts"] < status["tiers"]["cold"]["posts"]
    assert status["dead_letters"] == 0
    assert set(status["freshness_s"]) == {"p50", "p99"}


def test_prometheus_finds_every_process_that_has_metrics(running: Running) -> None:
    folder = running.pipeline.data_dir / "metrics"
    names = {"encode-blue-0", "cold-blue", "serve"}
    # The instance is ready when the retriever is; the encode process may still be loading its model.
    until(lambda: {file.stem for file in folder.glob("*.json")} == names, "three processes to name their address", 120)
    files = {name: json.loads((folder / f"{name}.json").read_bytes()) for name in names}
    for name, counter in (
        ("encode-blue-0", "nearline_encode_tokens_total"),
        ("cold-blue", "nearline_cold_oldest_erasure_seconds"),
        ("serve", "nearline_hot_posts"),
    ):
        (group,) = files[name]
        assert group["labels"] == {"process": name}
        with urllib.request.urlopen(f"http://{group['targets'][0]}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        assert float(next(line for line in lines if line.startswith(counter)).split()[1]) > 0


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
