"""The monitor as its process puts it together: whom it lets in by its settings, and that it mends the log."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from nearline.ports import free_ports
from schemas.topics import GENERATIONS
from streams.generations.log import change_generations, read_generations
from streams.settings import KafkaSettings
from tests.kit.data.generations import next_records
from tests.kit.kafka.topics import Sender
from tests.kit.running import child
from tests.kit.waiting import until

MONITOR = "tests.kit.children.monitor"
OF_ALL_CLIENTS = "of-all-clients"
WRONG_BODY = b"{"
"""Only who is let in is told that it is one."""


@contextmanager
def running(folder: Path, *key_and_broker: str) -> Iterator[int]:
    """Its port."""
    port = free_ports(1)[0]
    with child(MONITOR, str(folder), str(port), *key_and_broker) as monitor:
        assert monitor.stdout is not None
        assert monitor.stdout.readline() == "listens\n"
        yield port


def status(port: int, method: str, path: str, **headers: str) -> int:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, WRONG_BODY if method == "POST" else None, sent)
        answer = connection.getresponse()
        json.loads(answer.read())
        return answer.status


def test_without_a_key_of_its_own_it_takes_the_retrievers_and_only_names_of_loopback(tmp_path: Path) -> None:
    with running(tmp_path) as port:
        assert status(port, "POST", "/v1/acts/rollback", X_API_Key="another") == 401
        assert status(port, "POST", "/v1/acts/rollback", X_API_Key=OF_ALL_CLIENTS) == 400
        assert status(port, "GET", "/v1/overview") == 200
        assert status(port, "GET", "/v1/overview", Host="attacker.example") == 403


def test_with_one_it_takes_that_alone(tmp_path: Path) -> None:
    with running(tmp_path, "of-operators") as port:
        assert status(port, "POST", "/v1/acts/rollback", X_API_Key=OF_ALL_CLIENTS) == 401
        assert status(port, "POST", "/v1/acts/rollback", X_API_Key="of-operators") == 400
        assert status(port, "GET", "/v1/overview", Host="monitor.example") == 200


@pytest.mark.broker
def test_it_mends_a_damaged_record_of_the_generations(kafka: KafkaSettings, tmp_path: Path) -> None:
    change_generations(kafka, next_records)
    Sender(kafka).send(GENERATIONS, [("pointer", b"???")])
    with running(tmp_path, "", str(kafka.bootstrap_servers)):
        until(lambda: not read_generations(kafka).damages, "the last good record to be there again")
