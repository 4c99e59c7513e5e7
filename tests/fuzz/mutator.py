"""Changes inputs as JSON, msgpack or protobuf. Bytes that are changed at random are hardly ever valid, and would only
test that the parsers refuse them."""

import json
import random
from collections.abc import Callable
from typing import Any, Final

import atheris
import msgspec
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from retriever import nearline_pb2 as pb
from tests.fuzz.parts import GRPC_CALLS, NAMES, WORDS, seeds

JSON: Final = frozenset(("events", "contexts", "retrieve"))
MSGPACK: Final = frozenset(("hops", "embeddings", "wires"))
PROTOBUF: Final = "grpc"
_AS_BYTES: Final = 0.2
"""This share of inputs is changed as bytes all the same."""
_OTHER_KIND: Final = 0.2
"""How often a value becomes one of another kind: mostly a refusal, which is soon known."""
_NUMBERS: Final = (0, 1, -1, 255, 2**31, 2**53, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 10**30, 0.5, -0.0, 1e308, 1e-320)
_TEXTS: Final = ("", "\0", "a\0b", "é" * 129, "x" * 300, "漢" * 200)
_OTHERS: Final = (None, True, False, [], {}, [[[[{}]]]], *_TEXTS)
_WORDS: Final = tuple(word.strip('":') for word in WORDS)

Mutator = Callable[[bytes, int, int], bytes]


def mutator_for(target: str) -> Mutator | None:
    """None: libFuzzer's own."""
    if target in JSON:
        return _Mutator(target, json.loads, _to_json)
    if target == PROTOBUF:
        return _Mutator(target, _of_grpc, _to_grpc)
    return _Mutator(target, msgspec.msgpack.decode, msgspec.msgpack.encode) if target in MSGPACK else None


class _Mutator:
    def __init__(self, target: str, read: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> None:
        self._read = read
        self._write = write
        self._good = [value for value in map(self._value, seeds(target)) if value is not None]

    def __call__(self, data: bytes, max_size: int, seed: int) -> bytes:
        dice = random.Random(seed)
        if dice.random() < _AS_BYTES:
            return bytes(atheris.Mutate(data, max_size))
        value = self._value(data)
        if value is None:
            value = dice.choice(self._good)
        for _ in range(dice.choice((1, 1, 1, 2, 4))):
            value = _changed(value, dice)
        try:
            return self._write(value)[:max_size]
        except Exception:  # a number that msgpack cannot hold, half a character
            return bytes(atheris.Mutate(data, max_size))

    def _value(self, data: bytes) -> Any:
        """An object or a list; None for what is nothing of it any more."""
        try:
            value = self._read(data)
        except Exception:  # whatever the library raises
            return None
        return value if isinstance(value, dict | list) and value else None


def _changed(value: Any, dice: random.Random) -> Any:
    """A value of the same kind with something in it changed, or one of another kind."""
    if isinstance(value, dict) and value:
        return _changed_object(value, dice)
    if isinstance(value, list) and value:
        return _changed_list(value, dice)
    if dice.random() < _OTHER_KIND:
        return dice.choice((*_NUMBERS, *_OTHERS, *_WORDS))
    if isinstance(value, str):
        changed = atheris.Mutate(value.encode("utf-8", "surrogatepass"), 400).decode("utf-8", "replace")
        return dice.choice((changed, dice.choice(_WORDS)))
    if isinstance(value, bytes):
        return atheris.Mutate(value, 400)
    if isinstance(value, int):
        return dice.choice((*_NUMBERS, value + dice.choice((-1, 1, 1000, 10**6, 10**12))))
    return dice.choice((*_NUMBERS, *_OTHERS, *_WORDS))


def _changed_object(value: dict[Any, Any], dice: random.Random) -> dict[Any, Any]:
    name = dice.choice(list(value))
    match dice.randrange(6):
        case 0:
            return {other: held for other, held in value.items() if other != name}
        case 1:
            return {**value, dice.choice(NAMES): dice.choice((*_NUMBERS, *_OTHERS, *_WORDS))}
        case _:
            return {**value, name: _changed(value[name], dice)}


def _changed_list(value: list[Any], dice: random.Random) -> list[Any]:
    at = dice.randrange(len(value))
    match dice.randrange(6):
        case 0:
            return value[:at] + value[at + 1 :]
        case 1:
            return [*value, value[at]]
        case _:
            return [*value[:at], _changed(value[at], dice), *value[at + 1 :]]


def _to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _of_grpc(data: bytes) -> Any:
    message = _request(data[0])
    message.ParseFromString(data[1:])
    return {"call": data[0], "message": MessageToDict(message, preserving_proto_field_name=True)}


def _to_grpc(value: Any) -> bytes:
    message = ParseDict(value["message"], _request(value["call"]), ignore_unknown_fields=True)
    return bytes([value["call"]]) + bytes(message.SerializeToString())


def _request(call: int) -> Message:
    kind: type[Message] = getattr(pb, f"{GRPC_CALLS[call % len(GRPC_CALLS)]}Request")
    return kind()
