"""Asks a Kafka controller, at its own port on loopback, whether its cluster has an active broker.

Neither librdkafka nor aiokafka can ask: both begin with a request for metadata, which a controller refuses. So this
module sends one request of Kafka's admin protocol itself: create a topic with one replica, but only check whether that
would work. The controller would place the replica on a broker that is not fenced, and answers with an error where there
is none. It answers only after everything it decided before is committed, even though this request writes nothing
(`QuorumController.ControllerWriteEvent`).
"""

import socket
import struct
import uuid
from io import BytesIO
from typing import IO, Any, Final

from aiokafka import errors
from aiokafka.protocol.admin import CreateTopicsRequest_v2, CreateTopicsResponse_v2

_SIZE: Final = struct.Struct(">i")


class NoAnswer(Exception):
    """The controller cannot answer yet; ask again."""


def has_active_broker(port: int, timeout_s: float = 5.0) -> bool:
    """False when no broker was ever registered, or every one is fenced and that is committed. Raises NoAnswer."""
    try:
        code = _check_topic(port, timeout_s)
    except (OSError, ValueError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from None
    if code not in (errors.NoError.errno, errors.InvalidReplicationFactorError.errno):
        raise NoAnswer(errors.for_code(code).__name__)
    return code == int(errors.NoError.errno)


def _check_topic(port: int, timeout_s: float) -> int:
    """Kafka's error code for a topic with a new name and one replica."""
    partitions, replicas, validate_only = 1, 1, True
    topic: tuple[Any, ...] = (f"never-created-{uuid.uuid4().hex}", partitions, replicas, [], [])
    request = CreateTopicsRequest_v2([topic], int(timeout_s * 1000), validate_only)
    message = request.build_request_header(0, "nearline").encode() + request.encode()
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.sendall(_SIZE.pack(len(message)) + message)
        with connection.makefile("rb") as stream:
            (size,) = _SIZE.unpack(_read(stream, _SIZE.size))
            answer = BytesIO(_read(stream, size))
    request.parse_response_header(answer)
    ((_, code, _),) = CreateTopicsResponse_v2.decode(answer).topic_errors
    return int(code)


def _read(stream: IO[bytes], size: int) -> bytes:
    read = stream.read(size)
    if len(read) < size:
        raise ConnectionError("it closed the connection")
    return read
