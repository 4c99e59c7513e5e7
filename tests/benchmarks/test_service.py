"""What `benchmarks/service.py` starts as processes of their own still runs: mypy reads none of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kit.before import COMMIT
from benchmarks.kit.children import child
from benchmarks.kit.old_commit import checked_out
from benchmarks.kit.service.restart import MISSED, restarts
from benchmarks.kit.service.setup import BEFORE_FILES
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker

ROOT = Path(__file__).parents[2]
IMPORTS = "import benchmarks.kit.before.cold_process, benchmarks.kit.before.serve_process"


def test_the_service_as_it_was_loads_with_the_code_of_its_commit() -> None:
    if subprocess.run(["git", "-C", str(ROOT), "cat-file", "-e", COMMIT], check=False, capture_output=True).returncode:
        pytest.skip(f"this clone does not hold commit {COMMIT[:7]}")
    with checked_out(COMMIT, BEFORE_FILES) as code:
        environment = {**os.environ, "PYTHONPATH": str(code)}
        subprocess.run([sys.executable, "-c", IMPORTS], check=True, env=environment, cwd=code, timeout=120)


@pytest.mark.broker
def test_a_feed_that_starts_again_is_ready_with_and_without_a_snapshot(
    clean_topics: RunningBroker, tmp_path: Path
) -> None:
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers)
    figures = {figure.name: figure.value for figure in restarts(kafka, tmp_path / "data", 50, 8, rounds=1)}
    assert figures["restart: posts in the hot tier"] == 50 + MISSED


def test_a_process_that_ends_at_its_start_is_named() -> None:
    with child("benchmarks.no_such_module") as ended, pytest.raises(RuntimeError, match=r"no_such_module"):
        ended.hear()
