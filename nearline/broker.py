"""The embedded broker: Apache Kafka as one KRaft node on loopback, with its log in `DATA/kafka`.

Owns the folder, its ports and the Java process. Knows nothing of topics.
"""

import base64
import random
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from nearline import children
from nearline.errors import StartFailed
from nearline.kafka_jars import archive_file, ensure_jars
from streams.kafka import MAX_RECORD_BYTES

# Each topic of ours says so too; this is for the broker's own limits on fetches.
_MAX_BATCH_BYTES: Final = MAX_RECORD_BYTES + 64 * 1024

# Below the range from which the kernel takes ports for outgoing connections: there, a client that tries again while
# the broker is down could be given the broker's own port, connect to itself, and keep the broker from coming back.
_PORTS: Final = range(20_000, 32_000)

_START_S: Final = 60.0
_STOP_S: Final = 10.0

_HEAP: Final = ("-Xms128m", "-Xmx512m")
_JVM: Final = ("-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData", "-Djava.awt.headless=true")

_LOG4J: Final = """\
status = off
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {folder}/server.log
appender.file.filePattern = {folder}/server.log.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c{{1}}: %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
"""

_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={folder}/log
auto.create.topics.enable=false
message.max.bytes={max_batch_bytes}
replica.fetch.max.bytes={max_batch_bytes}
# One node: nothing to replicate to.
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
# A dead worker's open transaction is ended within its time-out plus this.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# A broker that was killed is let in again only when its old session has ended: keep that short.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
# A laptop's share of threads and memory.
num.network.threads=2
num.io.threads=4
background.threads=2
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=16777216
"""


class _Ports(Struct, frozen=True):
    port: int
    controller_port: int


class EmbeddedBroker:
    """One broker of one folder. `start` and `stop` may be called in turn any number of times, also from another
    process than the one that started it; the ports stay the same, so that clients find it again."""

    def __init__(self, folder: Path, jvm: Sequence[str] = ()) -> None:
        """`jvm` are more flags of the Java virtual machine."""
        self.folder = folder.absolute()
        self._jvm = jvm
        self._child: children.Child | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Known after `prepare`, and from then on also while it is down. Raises StartFailed before."""
        ports = self._read_ports()
        if ports is None:
            raise StartFailed(f"no broker was ever started in {self.folder}; run: nearline broker start")
        return f"127.0.0.1:{ports.port}"

    def start(self, timeout_s: float = _START_S) -> None:
        """Starts it on its own and returns when it serves. Does nothing when it runs. Raises StartFailed."""
        if self.running() is None:
            self.prepare()
            self.launch(dies_with_parent=False)
        self.wait_ready(timeout_s)

    def stop(self, timeout_s: float = _STOP_S) -> bool:
        """Ends it, with kill -9 after `timeout_s`. Returns False when it did not run."""
        process = self.running()
        if process is not None:
            children.end(process, timeout_s)
            self._reap()
        self._pid_file.unlink(missing_ok=True)
        return process is not None

    def running(self) -> psutil.Process | None:
        """The Java process, if the recorded pid is still that."""
        self._reap()
        if self._child is not None:
            return psutil.Process(self._child.pid)
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        return children.find(pid, lambda command: str(self._properties) in command)

    def serves(self) -> bool:
        """True when it runs and answers a request for metadata as a broker that takes part."""
        ports = self._read_ports()
        return ports is not None and _listens(ports.port) and _answers(ports.port)

    def prepare(self) -> None:
        """Jars, ports, configuration and formatted storage, whatever of it is not there. Raises StartFailed."""
        find_java()
        ensure_jars()
        self.folder.mkdir(parents=True, exist_ok=True)
        ports = self._choose_ports()
        self._properties.write_text(
            _PROPERTIES.format(
                folder=self.folder,
                port=ports.port,
                controller_port=ports.controller_port,
                max_batch_bytes=_MAX_BATCH_BYTES,
            )
        )
        self._log4j.write_text(_LOG4J.format(folder=self.folder))
        if not (self.folder / "log" / "meta.properties").exists():
            self._format()

    def launch(self, *, dies_with_parent: bool) -> children.Child:
        """Starts the Java process after `prepare`, without waiting for it to serve."""
        with (self.folder / "output.log").open("ab") as output:
            process = children.spawn(
                self._command("kafka.Kafka", str(self._properties), jvm=(*_HEAP, *self._jvm)),
                cwd=self.folder,
                output=output,
                dies_with_parent=dies_with_parent,
            )
        self._pid_file.write_text(str(process.pid))
        self._child = process
        return process

    def wait_ready(self, timeout_s: float = _START_S) -> None:
        """Returns when it serves. Raises StartFailed when it ended or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not self.serves():
            if self.running() is None:
                raise StartFailed(f"the broker ended; its last words are in {self.folder}/server.log and output.log")
            if time.monotonic() > deadline:
                raise StartFailed(f"the broker does not serve after {timeout_s:.0f} s; see {self.folder}/server.log")
            time.sleep(0.1)

    def _reap(self) -> None:
        """Takes note of the end of a process that this object launched."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _log4j(self) -> Path:
        return self.folder / "log4j2.properties"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "broker.pid"

    @property
    def _ports_file(self) -> Path:
        return self.folder / "ports.json"

    def _command(self, main: str, *arguments: str, jvm: Sequence[str]) -> list[str]:
        java = find_java()
        archive = archive_file(java)
        known_classes = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        log4j = f"-Dlog4j2.configurationFile={self._log4j}"
        return [str(java), *_JVM, *known_classes, *jvm, log4j, "-cp", f"{ensure_jars()}/*", main, *arguments]

    def _format(self) -> None:
        """A half-formatted log has no meta.properties and is formatted again."""
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # With "=", since an id may begin with "-".
        arguments = ("format", f"--cluster-id={cluster_id}", "-c", str(self._properties), "--ignore-formatted")
        command = self._command("kafka.tools.StorageTool", *arguments, jvm=("-XX:TieredStopAtLevel=1",))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StartFailed(f"the broker's storage could not be formatted: {(done.stderr or done.stdout).strip()}")

    def _read_ports(self) -> _Ports | None:
        try:
            return msgspec.json.decode(self._ports_file.read_bytes(), type=_Ports)
        except (OSError, msgspec.DecodeError):
            return None

    def _choose_ports(self) -> _Ports:
        """Those of the last time, unless someone else took one meanwhile."""
        ports = self._read_ports()
        if ports is None or not (_is_free(ports.port) and _is_free(ports.controller_port)):
            port, controller_port = free_ports(2)
            ports = _Ports(port, controller_port)
            self._ports_file.write_bytes(msgspec.json.encode(ports))
        return ports


def find_java() -> Path:
    """Raises StartFailed."""
    java = shutil.which("java")
    if java is None:
        raise StartFailed("the embedded broker needs Java; install Java 17 or newer, or set kafka.bootstrap_servers")
    return Path(java)


def free_ports(number: int) -> list[int]:
    """On loopback, where the kernel gives none to outgoing connections. Raises StartFailed."""
    found: list[int] = []
    for port in random.sample(_PORTS, 1000):
        if _is_free(port):
            found.append(port)
        if len(found) == number:
            return found
    raise StartFailed(f"no free port between {_PORTS.start} and {_PORTS.stop} on loopback; end what uses them")


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _answers(port: int) -> bool:
    """Metadata names only brokers that are not fenced."""
    client = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0})
    try:
        return bool(client.list_topics(timeout=2).brokers)
    except KafkaException:
        return False
