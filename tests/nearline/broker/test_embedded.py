import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from nearline.broker.controller import has_active_broker
from nearline.broker.embedded import EmbeddedBroker
from nearline.errors import StartFailed
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import read_topic

pytestmark = pytest.mark.broker


def test_records_survive_kill_9_on_the_same_port(fresh_broker: RunningBroker) -> None:
    before = fresh_broker.bootstrap_servers
    fresh_broker.admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(20)
    _produce(fresh_broker, "kept", b"one")
    fresh_broker.kill()
    assert not fresh_broker.embedded.serves(), "a killed broker must not seem to serve"
    fresh_broker.start()
    assert fresh_broker.bootstrap_servers == before, "clients would not find the broker again"
    assert _values(fresh_broker, "kept") == [b"one"]


def test_a_transaction_that_was_open_at_kill_9_is_ended_everywhere(fresh_broker: RunningBroker) -> None:
    """Its time is up when the broker is back, which aborts it while it starts. A partition that is not told of the end
    keeps every reader of committed records waiting for good."""
    topic, partitions, timeout_s = "cut-off", 20, 1.0
    fresh_broker.admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(20)
    producer = Producer(
        {
            "bootstrap.servers": fresh_broker.bootstrap_servers,
            "transactional.id": "worker",
            "transaction.timeout.ms": int(timeout_s * 1000),
            "log_level": 0,
        }
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    for partition in range(partitions):
        producer.produce(topic, b"never committed", partition=partition)
    assert producer.flush(20) == 0
    fresh_broker.kill()
    time.sleep(timeout_s)
    fresh_broker.start()
    # Not a transaction of the same producer: that would end the old one with it.
    for partition in range(partitions):
        _produce(fresh_broker, topic, b"after", partition)
    assert _values(fresh_broker, topic) == [b"after"] * partitions


def test_the_data_is_in_the_folder_whatever_its_name(fresh_broker: RunningBroker) -> None:
    """The name has a space, a comma, letters beyond ASCII and what means something in Java's properties."""
    fresh_broker.admin.create_topics([NewTopic("here", 1, 1)])["here"].result(20)
    _produce(fresh_broker, "here", b"long enough to be compressed" * 100)
    assert (fresh_broker.folder / "log" / "here-0").is_dir()
    assert (fresh_broker.folder / "server.log").is_file()
    assert list(fresh_broker.data_dir.parent.iterdir()) == [fresh_broker.data_dir]
    assert list(fresh_broker.data_dir.iterdir()) == [fresh_broker.folder]
    unpacked = fresh_broker.folder / "tmp"
    assert list(unpacked.glob("liblz4*.so")), "a killed broker would leave its codecs among the machine's own files"


def test_a_running_broker_counts_for_its_controller(fresh_broker: RunningBroker) -> None:
    """That a killed one counts no more is what every start above has waited for: see
    `nearline/broker/fenced_start.py`."""
    ports = json.loads((fresh_broker.folder / "ports.json").read_text())
    assert has_active_broker(ports["controller_port"])
    topics = fresh_broker.admin.list_topics(timeout=10).topics
    assert not [name for name in topics if not name.startswith("__")], "asking must leave nothing behind"


def test_start_of_a_running_broker_changes_nothing(fresh_broker: RunningBroker) -> None:
    process = fresh_broker.embedded.running()
    assert process is not None
    EmbeddedBroker(fresh_broker.folder).start()
    again = fresh_broker.embedded.running()
    assert again is not None
    assert again.pid == process.pid


def test_the_command_starts_stops_and_shows_it(fresh_broker: RunningBroker) -> None:
    folder = ["--data-dir", str(fresh_broker.data_dir)]
    assert _command("status", *folder).stdout.startswith(f"{fresh_broker.bootstrap_servers} pid ")
    assert _command("stop", *folder).stdout == "stopped\n"
    assert _command("stop", *folder).stdout == "not running\n"
    gone = _command("status", *folder)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr.startswith(f"nearline: no broker runs in {fresh_broker.folder}")
    assert _command("start", *folder).stdout == f"{fresh_broker.bootstrap_servers}\n"
    assert fresh_broker.embedded.serves()


def test_clean_topics_leaves_no_topic_and_no_group(clean_topics: RunningBroker) -> None:
    admin = clean_topics.admin
    assert [name for name in admin.list_topics(timeout=10).topics if not name.startswith("__")] == []
    assert admin.list_consumer_groups().result(10).valid == []


def test_a_broker_that_never_started_has_no_address(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="nearline broker start"):
        _ = EmbeddedBroker(tmp_path).bootstrap_servers


def _command(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nearline", "broker", name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def _produce(broker: RunningBroker, topic: str, value: bytes, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "compression.type": "lz4"})
    producer.produce(topic, value, partition=partition)
    assert producer.flush(20) == 0


def _values(broker: RunningBroker, topic: str) -> list[bytes | None]:
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    return [record.value() for record in read_topic(kafka, topic, timeout_s=20)]
