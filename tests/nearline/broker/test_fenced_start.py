"""What is done with a controller's answers. That Kafka's controller gives them is tested in `test_embedded.py`."""

import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple, Self

import pytest
from aiokafka.errors import InvalidReplicationFactorError, NoError, NotControllerError
from aiokafka.protocol.admin import CreateTopicsRequest_v2, CreateTopicsResponse_v2
from aiokafka.protocol.api import RequestHeader_v1, ResponseHeader_v0

from nearline.broker import fenced_start
from nearline.broker.controller import NoAnswer, has_active_broker
from nearline.ports import free_ports
from tests.kit.waiting import until

_STARTING: Final = NotControllerError.errno
_ACTIVE: Final = NoError.errno
_FENCED: Final = InvalidReplicationFactorError.errno

_RUNS: Final = "import time; time.sleep(60)"
_LOG_LINE: Final = "Performing controller activation. Fencing broker 1 reaches offset 12. items up to offset 12"
_BROKER: Final = "import os; print(os.getpid())"


class _Controller(socketserver.ThreadingTCPServer):
    """Answers with the codes in turn, and with the last one for ever."""

    daemon_threads = True

    def __init__(self, *codes: int) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.port: int = self.server_address[1]
        self.codes = list(codes)
        self.asked = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Answer(socketserver.StreamRequestHandler):
    server: _Controller

    def handle(self) -> None:
        request = BytesIO(self.rfile.read(int.from_bytes(self.rfile.read(4), "big")))
        _, _, correlation_id, _ = RequestHeader_v1.SCHEMA.decode(request)
        wanted_topics = CreateTopicsRequest_v2.decode(request)
        assert wanted_topics.validate_only, "the question must not create a topic"
        ((name, *_),) = wanted_topics.create_topic_requests
        code = self.server.codes[min(self.server.asked, len(self.server.codes) - 1)]
        self.server.asked += 1
        answer = ResponseHeader_v0(correlation_id).encode()
        answer += CreateTopicsResponse_v2(0, [(name, code, "words that nobody reads")]).encode()
        self.wfile.write(len(answer).to_bytes(4, "big") + answer)


def test_the_broker_begins_under_the_same_pid_once_the_old_one_is_fenced(tmp_path: Path) -> None:
    with _Controller(_STARTING, _ACTIVE, _ACTIVE, _FENCED) as controller:
        ran = _run(tmp_path, controller.port, _RUNS)
    assert ran == (0, f"{ran.pid}\n", "", ran.pid)
    assert controller.asked == len(controller.codes)


def test_what_a_log_says_never_starts_the_broker(tmp_path: Path) -> None:
    with _Controller(_ACTIVE) as controller:
        ran = _run(tmp_path, controller.port, f"print({_LOG_LINE!r})")
    assert (ran.status, ran.out) == (1, "")
    sentence = "the controller ended before it had fenced the previous broker; its output is in"
    assert ran.err == f"{sentence} {tmp_path / 'output'}\n"
    assert (tmp_path / "output").read_text() == f"{_LOG_LINE}\n"


def test_a_controller_that_ends_right_after_its_answer_is_not_believed(tmp_path: Path) -> None:
    """It may have been another one that answered: a broker that still runs has the same port."""
    with _Controller(_FENCED) as controller:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait(60)
        with pytest.raises(SystemExit, match="ended before it had fenced"):
            fenced_start.wait_until_fenced(process, controller.port, tmp_path / "output")


def test_while_it_is_not_sure_it_says_so_and_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with _Controller(_STARTING) as controller, _waiting(controller.port, tmp_path) as waiter:
        until(lambda: controller.asked > 2, "the controller to be asked again and again")
        assert waiter.is_alive()
        controller.codes = [_FENCED]
        waiter.join(30)
        assert not waiter.is_alive()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "waiting for the controller to fence the previous broker: NotControllerError"


def test_a_controller_that_cannot_be_asked_leaves_it_open() -> None:
    (port,) = free_ports(1)
    with pytest.raises(NoAnswer, match="refused"):
        has_active_broker(port)


@contextmanager
def _waiting(port: int, folder: Path) -> Iterator[threading.Thread]:
    process = subprocess.Popen([sys.executable, "-c", _RUNS])
    waiter = threading.Thread(
        target=fenced_start.wait_until_fenced, args=(process, port, folder / "output"), kwargs={"print_every_s": 0.0}
    )
    waiter.start()
    try:
        yield waiter
    finally:
        process.kill()
        process.wait()
        waiter.join()


class _Ran(NamedTuple):
    status: int
    out: str
    err: str
    pid: int


def _run(folder: Path, port: int, controller: str) -> _Ran:
    python = [sys.executable, "-c"]
    command = [sys.executable, "-m", "nearline.broker.fenced_start", str(folder / "output"), str(port)]
    with subprocess.Popen(
        [*command, *python, controller, "--", *python, _BROKER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return _Ran(process.returncode, out, err, process.pid)
