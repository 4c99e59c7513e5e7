"""gRPC for `load.py`: many calls at the same time on each connection. A status of 0 is a good answer.

It writes and reads the frames of HTTP/2 (RFC 9113) itself, only as far as unary calls need them: a stock client of
Python takes 250 µs of the shared cores for an answer with 2,000 candidates, this takes 80. It makes each header block
without compression and asks the server for the same, and it counts the bytes of an answer without decoding them.
One answer of `SAMPLE_EVERY`, or of as many as the caller says, is kept whole, so that the caller can decode it with the
generated classes.
"""

import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from benchmarks.kit.load import Answer

OK: Final = 0
DEADLINE_EXCEEDED: Final = 4
COME_AGAIN: Final = frozenset({8, 14})
"""RESOURCE_EXHAUSTED and UNAVAILABLE."""
HUNG_UP: Final = -1
"""The stream was reset without a status."""
_OF_RESETS: Final = {7: 14, 8: 1, 11: 8}
"""Statuses that stand for errors of HTTP/2, as gRPC has it: REFUSED_STREAM, by which its library itself refuses a call
that it has no room for, CANCEL, and ENHANCE_YOUR_CALM."""

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_MAX_WINDOW: Final = 2**31 - 1
_RENEW_WINDOW: Final = 2**29
_HEAD_BYTES: Final = 9
_SETTINGS_SENT: Final = {1: 0, 2: 0, 4: _MAX_WINDOW, 5: 2**20}
"""No table of headers, no push, the largest window, frames of up to a megabyte."""
_BUFFER_BYTES: Final = 2**20
_KEPT_BYTES: Final = 300
"""So much of an answer is kept: its generation and whether it is partial come first."""
SAMPLE_EVERY: Final = 64


class _Call:
    """A call that is not answered yet."""

    def __init__(self, keep_bytes: int) -> None:
        self.sent_s = time.perf_counter()
        self.keep_bytes = keep_bytes
        self.kept = bytearray()
        self.status = HUNG_UP


class _Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    num_bytes: int


def requests(path: str, messages: Iterator[bytes], timeout_s: float) -> Iterator[bytes]:
    """Each message as the frames of a call of the method at `path`. Their stream is filled in by the connection."""
    headers = {":path": path, ":authority": "benchmark", "te": "trailers", "content-type": "application/grpc"}
    # ":method POST" and ":scheme http" have numbers in HTTP/2's own table.
    block = b"\x83\x86" + _literals({**headers, "grpc-timeout": f"{round(timeout_s * 1e3)}m"})
    head = _frame(_HEADERS, _END_HEADERS, block)
    for message in messages:
        yield head + _frame(_DATA, _END_STREAM, b"\0" + struct.pack(">I", len(message)) + message)


def connecting(
    host: str, port: int, calls_at_once: int, samples: list[bytes] | None = None, sample_every: int = SAMPLE_EVERY
) -> "Callable[[], GrpcConnection]":
    """`samples` gets the messages of the good answers that are kept whole, one of `sample_every`."""
    return lambda: GrpcConnection(host, port, calls_at_once, samples, sample_every)


class GrpcConnection:
    _buffer: Final = bytearray(_BUFFER_BYTES)

    def __init__(
        self, host: str, port: int, calls_at_once: int, samples: list[bytes] | None, sample_every: int
    ) -> None:
        self.socket = socket.create_connection((host, port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._calls_at_once = calls_at_once
        self._samples = samples
        self._sample_every = sample_every
        self._calls: dict[int, _Call] = {}
        self._next_stream = 1
        self._num_unacknowledged = 0
        self._unread = bytearray()
        """The beginning of a frame whose end has not come yet. Never of a DATA frame, which is taken as it comes."""
        self._frame: _Frame | None = None
        self._left = 0
        """Bytes of the DATA frame `_frame` that have not come yet."""
        settings = b"".join(struct.pack(">HI", name, value) for name, value in _SETTINGS_SENT.items())
        self.socket.sendall(_PREFACE + _frame(_SETTINGS, 0, settings) + _window(_MAX_WINDOW - 65_535))

    @property
    def has_room(self) -> bool:
        return len(self._calls) < self._calls_at_once

    def send(self, request: bytes) -> None:
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        is_sample = self._samples is not None and stream // 2 % self._sample_every == 0
        self._calls[stream] = _Call(2**31 if is_sample else _KEPT_BYTES)
        frames = bytearray(request)
        data_at = _HEAD_BYTES + int.from_bytes(frames[:3], "big")
        for at in (0, data_at):
            struct.pack_into(">I", frames, at + 5, stream)
        self.socket.sendall(frames)

    def receive(self) -> list[Answer]:
        size = self.socket.recv_into(self._buffer)
        if size == 0:
            raise ConnectionError("the server hung up")
        answers: list[Answer] = []
        incoming, at = memoryview(self._buffer)[:size], 0
        while at < size:
            at += self._take_data(incoming[at:], answers) if self._left else self._take_frame(incoming[at:], answers)
        return answers

    def _take_data(self, incoming: memoryview, answers: list[Answer]) -> int:
        """Takes what has come of a DATA frame, and returns how many bytes that is."""
        assert self._frame is not None
        size = min(self._left, len(incoming))
        self._left -= size
        call = self._calls.get(self._frame.stream)
        if call is not None and len(call.kept) < call.keep_bytes:
            call.kept += incoming[: min(size, call.keep_bytes - len(call.kept))]
        if self._left == 0:
            self._acknowledge(self._frame.num_bytes)
            if self._frame.flags & _END_STREAM:
                self._end(self._frame.stream, answers)
        return size

    def _take_frame(self, incoming: memoryview, answers: list[Answer]) -> int:
        """Takes bytes up to the end of the head of a DATA frame, or up to the end of another frame."""
        before = len(self._unread)
        size = max(0, _HEAD_BYTES - before)
        self._unread += incoming[:size]
        if len(self._unread) < _HEAD_BYTES:
            return len(incoming)
        head = self._unread
        frame = _Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), int.from_bytes(head[:3], "big"))
        if frame.kind == _DATA:
            self._frame, self._left = frame, frame.num_bytes
            self._unread.clear()
            if frame.num_bytes == 0 and frame.flags & _END_STREAM:
                self._end(frame.stream, answers)
            return size
        missing = _HEAD_BYTES + frame.num_bytes - len(self._unread)
        part = incoming[size : size + missing]
        self._unread += part
        if len(part) == missing:
            self._react(frame, bytes(self._unread[_HEAD_BYTES:]), answers)
            self._unread.clear()
        return size + len(part)

    def _react(self, frame: _Frame, body: bytes, answers: list[Answer]) -> None:
        if frame.kind == _HEADERS:
            if frame.stream in self._calls:
                self._calls[frame.stream].status = _status(body, self._calls[frame.stream].status)
            if frame.flags & _END_STREAM:
                self._end(frame.stream, answers)
        elif frame.kind == _RST_STREAM:
            if frame.stream in self._calls:
                self._calls[frame.stream].status = _OF_RESETS.get(int.from_bytes(body, "big"), HUNG_UP)
            self._end(frame.stream, answers)
        elif frame.kind in {_SETTINGS, _PING} and not frame.flags & _ACK:
            self.socket.sendall(_frame(frame.kind, _ACK, body if frame.kind == _PING else b""))
        elif frame.kind == _GOAWAY:
            raise ConnectionError(f"the server ended the connection: {body[8:]!r}")

    def _end(self, stream: int, answers: list[Answer]) -> None:
        call = self._calls.pop(stream, None)
        if call is None:
            return
        now = time.perf_counter()
        answers.append(Answer(call.status, now, now - call.sent_s, is_partial(call.kept)))
        if self._samples is not None and call.keep_bytes > _KEPT_BYTES and call.status == OK:
            self._samples.append(bytes(call.kept[5:]))

    def _acknowledge(self, num_bytes: int) -> None:
        self._num_unacknowledged += num_bytes
        if self._num_unacknowledged >= _RENEW_WINDOW:
            self.socket.sendall(_window(self._num_unacknowledged))
            self._num_unacknowledged = 0


def is_partial(kept: bytearray) -> bool:
    """Reads `partial` (field 2 of RetrieveResponse) behind the length of the message (5 bytes) and `generation`."""
    if len(kept) < 7 or kept[5] != 0x0A:
        return False
    at = 7 + kept[6] if kept[6] < 0x80 else 8 + (kept[6] & 0x7F) + (kept[7] << 7)
    return bytes(kept[at : at + 2]) == b"\x10\x01"


def _status(block: bytes, otherwise: int) -> int:
    """The value of `grpc-status` in a header block, in which nothing is compressed."""
    _, name, rest = block.partition(b"grpc-status")
    return int(rest[1 : 1 + rest[0]]) if name else otherwise


def _literals(headers: Mapping[str, str]) -> bytes:
    pairs = ((name.encode(), value.encode()) for name, value in headers.items())
    return b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in pairs)


def _frame(kind: int, flags: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + bytes(4) + body


def _window(num_bytes: int) -> bytes:
    return _frame(_WINDOW_UPDATE, 0, struct.pack(">I", num_bytes))
