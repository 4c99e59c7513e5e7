"""Asks a Kafka controller, at its own port on loopback, whether a broker takes part in its cluster.

No client at hand can ask it: librdkafka and aiokafka begin with a request for metadata, which a controller refuses. So
this sends one request of Kafka's admin protocol by itself: to check a topic, and not create it. A controller places
its only replica on a broker that is not fenced, and refuses where there is none. It answers when everything that it
decided before is committed, also where the answer itself writes nothing (`QuorumController.ControllerWriteEvent`).
"""

import socket
import struct
import uuid
from io import BytesIO
from typing import IO, Any, Final

from aiokafka import errors
from aiokafka.protocol.admin import CreateTopicsRequest_v2, CreateTopicsResponse_v2

_SIZE: Final = struct.Struct(">i")


class Unsure(Exception):
    """The controller did not say; ask again."""


def has_active_broker(port: int, timeout_s: float = 5.0) -> bool:
    """False when no broker was ever there, or every one is fenced and that is committed. Raises Unsure."""
    try:
        code = _check_a_topic(port, timeout_s)
    except (OSError, ValueError) as error:
        raise Unsure(str(error) or type(error).__name__) from None
    if code not in (errors.NoError.errno, errors.InvalidReplicationFactorError.errno):
        raise Unsure(errors.for_code(code).__name__)
    return code == int(errors.NoError.errno)


def _check_a_topic(port: int, timeout_s: float) -> int:
    """Kafka's error code for one with a name that no other has, and one replica."""
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
