"""The configuration files of the embedded broker: one node on loopback, with a laptop's share of threads and memory.

Every path is relative to the folder in which the broker is started, so no file has to hold the folder's name. Each
would read a special name differently: Java reads properties as Latin-1, Kafka splits `log.dirs` at commas, log4j
replaces `%d` and `${x}`.
"""

from collections.abc import Mapping
from typing import Final

from streams.kafka.records import MAX_RECORD_BYTES

# Each of our topics has its own limit; this one is for the broker's fetches.
_MAX_BATCH_BYTES: Final = MAX_RECORD_BYTES + 64 * 1024

_LOG4J: Final = """\
status = off
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = server.log
appender.file.filePattern = server.log.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c{1}: %m%n
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
log.dirs=log
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
# The broker looks this often for transactions whose time-out is over, such as those of a dead worker.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# While the node is fenced, transactions can be left open for ever: see fenced_start.py. So it is never fenced while it
# runs, even after a long pause, nor when it stops. No other node needs to notice its end.
broker.session.timeout.ms=86400000
controlled.shutdown.enable=false
# What one node tells itself: an idle broker took a quarter of a core, most of it for records without content that were
# written to the metadata log twice a second.
metadata.max.idle.interval.ms=0
broker.heartbeat.interval.ms=10000
# A laptop's share of threads and memory.
num.network.threads=1
num.io.threads=2
background.threads=2
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=16777216
"""


_FENCING: Final = """\
process.roles=controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=CONTROLLER://127.0.0.1:{controller_port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT
log.dirs=log
broker.heartbeat.interval.ms=100
broker.session.timeout.ms=300
"""

_FENCING_LOG4J: Final = """\
status = off
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


def broker_properties(port: int, controller_port: int, extra: Mapping[str, str]) -> str:
    """Where `extra` names one of our properties, its value wins: Java takes the last line for a name."""
    ours = _PROPERTIES.format(port=port, controller_port=controller_port, max_batch_bytes=_MAX_BATCH_BYTES)
    return ours + "".join(f"{name}={value}\n" for name, value in extra.items())


def fencing_properties(controller_port: int) -> str:
    """Runs the same node as a controller alone. It fences the old broker after 300 ms without a heartbeat."""
    return _FENCING.format(controller_port=controller_port)


def fencing_log4j_properties() -> str:
    """Writes warnings to stdout."""
    return _FENCING_LOG4J


def log4j_properties() -> str:
    """Writes warnings to a file in the folder, at most 30 MB."""
    return _LOG4J
