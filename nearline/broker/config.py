"""What the embedded broker is told: one node, loopback, a laptop's share of threads and memory.

Every path is relative to the folder that the broker is started in. So no file here holds the folder's name, which would
mean something else in each of them: Java reads properties as Latin-1, Kafka splits `log.dirs` at commas, log4j replaces
`%d` and `${x}`.
"""

from collections.abc import Mapping
from typing import Final

from streams.kafka.clients import MAX_RECORD_BYTES

# Each topic of ours says so too; this is for the broker's own limits on fetches.
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
# A dead worker's open transaction is ended within its time-out plus this.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# Nobody but the node itself would notice its end, and while it is fenced transactions are left open: see
# fenced_start.py. So it is never fenced while it runs, not after a long pause either, and not when it stops.
broker.session.timeout.ms=86400000
controlled.shutdown.enable=false
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


def broker_properties(port: int, controller_port: int, more: Mapping[str, str]) -> str:
    """Of a property that is there twice the last one counts."""
    ours = _PROPERTIES.format(port=port, controller_port=controller_port, max_batch_bytes=_MAX_BATCH_BYTES)
    return ours + "".join(f"{name}={value}\n" for name, value in more.items())


def fencing_properties(controller_port: int) -> str:
    """Of the same node as a controller alone, which takes the broker's old session for ended at once."""
    return _FENCING.format(controller_port=controller_port)


def fencing_log4j_properties() -> str:
    """Warnings to stdout."""
    return _FENCING_LOG4J


def log4j_properties() -> str:
    """Warnings to a file in the folder, at most 30 MB."""
    return _LOG4J
