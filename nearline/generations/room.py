"""How much room another generation needs on a machine beside those that live there, and the refusal where it is not.

    process   memory                                       disk
    encode    Python and torch, and the weights            -
    cold      what the embedded engine keeps of a point    as much as the serving one's cold tier, by dimension
    serve     the weights once more, and a hot tier        a snapshot of the hot tier, twice while it is written
    broker    -                                            as much as the serving one's embeddings, by dimension

What lies on a GPU is not in memory. These are estimates of the least, from figures that were measured: what a batch
takes, and members, kept answers and caches, which have bounds of their own, are left out. Knows neither processes nor
how much is free: `free_room.py`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Final, NamedTuple, Self

from encoders.package.model_package import WEIGHTS_FILE, ModelPackage
from nearline.errors import NoRoom
from schemas.ids import Generation

_TORCH_BYTES: Final = 620_000_000
"""Of an encode process with a package of 7 MB, without the files of libraries that processes share."""
_COLD_BYTES: Final = 46_000_000
"""Of a cold process that holds nothing, likewise."""
_POINT_BYTES: Final = 250
_POINT_BYTES_A_NUMBER: Final = 2.5
"""Of a point in the embedded engine, beside what it leaves to the kernel's cache: 430 bytes with 128 numbers and 1,000
with 512, and a byte a number for those that are quantised, which stay in memory."""
_HOT_POST_BYTES: Final = 250
"""Beside the vector: `python -m benchmarks.hot_tier` measures it."""
_GPU_POST_BYTES: Final = 17
"""Of a post on a GPU beside the vector: one column of 8 bytes, two of 4, and a mask."""
_SNAPSHOTS: Final = 2
"""A new one is written beside the old one."""


class Model(NamedTuple):
    """Of the generation that needs room."""

    generation: Generation
    dimension: int
    weights_bytes: int
    """0 where they are not: the index stage needs none, and whoever opens them says that they are missing."""

    @classmethod
    def of(cls, package: ModelPackage) -> Self:
        weights = package.folder / WEIGHTS_FILE
        return cls(package.generation, package.dimension, weights.stat().st_size if weights.exists() else 0)


class Corpus(NamedTuple):
    """What the serving generation has on this machine. As much comes to another one."""

    dimension: int
    posts: int | None
    """None: nobody can say now how many are live."""
    members: int | None
    cold_bytes: int = 0
    """The files of its embedded cold tier."""
    log_bytes: int = 0
    """Its topics, where the broker is the embedded one."""


@dataclass(frozen=True)
class Room:
    """In bytes. On GPUs by device."""

    memory: int = 0
    disk: int = 0
    gpus: Mapping[str, int] = field(default_factory=dict)

    def without(self, other: "Room") -> "Room":
        gpus = {device: max(0, wanted - other.gpus.get(device, 0)) for device, wanted in self.gpus.items()}
        return Room(max(0, self.memory - other.memory), max(0, self.disk - other.disk), gpus)


def together(rooms: Iterable[Room]) -> Room:
    memory, disk, gpus = 0, 0, dict[str, int]()
    for room in rooms:
        memory, disk = memory + room.memory, disk + room.disk
        for device, wanted in room.gpus.items():
            gpus[device] = gpus.get(device, 0) + wanted
    return Room(memory, disk, gpus)


def encode_room(model: Model, gpu: str | None) -> Room:
    """Of one encode process. `gpu`: the device on which it encodes; None for a CPU."""
    if gpu is None:
        return Room(memory=_TORCH_BYTES + model.weights_bytes)
    return Room(memory=_TORCH_BYTES, gpus={gpu: model.weights_bytes})


def cold_room(model: Model, corpus: Corpus) -> Room:
    """Of a process with an embedded cold tier."""
    point = _POINT_BYTES + _POINT_BYTES_A_NUMBER * model.dimension
    points = (corpus.posts or 0) + (corpus.members or 0)
    return Room(memory=_COLD_BYTES + int(points * point), disk=_scaled(corpus.cold_bytes, model, corpus))


def log_room(model: Model, corpus: Corpus) -> Room:
    """Of the topics at an embedded broker."""
    return Room(disk=_scaled(corpus.log_bytes, model, corpus))


def serve_room(
    model: Model, corpus: Corpus, *, capacity: int, snapshots: bool, encode_gpu: str | None, hot_gpu: str | None
) -> Room:
    """Of one retriever that opens this generation beside another. `snapshots`: whether it writes them."""
    posts = capacity if corpus.posts is None else min(capacity, corpus.posts)
    vectors, rest = posts * model.dimension * 4, posts * _HOT_POST_BYTES
    return together(
        [
            Room(memory=rest, disk=_SNAPSHOTS * (vectors + rest) if snapshots else 0),
            _there(hot_gpu, vectors, vectors + posts * _GPU_POST_BYTES),
            _there(encode_gpu, model.weights_bytes, model.weights_bytes),
        ]
    )


def _there(gpu: str | None, in_memory: int, on_gpu: int) -> Room:
    return Room(memory=in_memory) if gpu is None else Room(gpus={gpu: on_gpu})


def _scaled(size: int, model: Model, corpus: Corpus) -> int:
    return size * model.dimension // corpus.dimension


class Free(NamedTuple):
    """How to ask what is free, in bytes. Only that is asked for of which something is needed."""

    memory: Callable[[], int]
    disk: Callable[[], int]
    gpu: Callable[[str], int]


def refuse_without_room(generation: Generation, what: str, needed: Room, free: Free, mend: str) -> None:
    """`what`: who needs it. `mend`: what helps, other than more room. Raises NoRoom."""
    compared = [
        *([("memory", needed.memory, free.memory())] if needed.memory else []),
        *([("disk", needed.disk, free.disk())] if needed.disk else []),
        *((f"the memory of {device}", wanted, free.gpu(device)) for device, wanted in needed.gpus.items() if wanted),
    ]
    lacking = [
        f"{_size(wanted)} of {name}, of which {_size(is_free, floor)} are free and "
        f"{_size(wanted - is_free)} are missing"
        for name, wanted, is_free in compared
        if wanted > is_free
    ]
    if lacking:
        raise NoRoom(
            f"this machine has no room for the generation {generation}: {what} about {', and '.join(lacking)}; {mend}"
        )


def _size(num_bytes: int, rounded: Callable[[float], int] = ceil) -> str:
    return f"{rounded(num_bytes / 1e8) / 10:.1f} GB" if num_bytes >= 1e9 else f"{rounded(num_bytes / 1e6)} MB"
