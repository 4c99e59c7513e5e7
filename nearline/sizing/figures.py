"""The measured figures from which sizes follow, each with the place where it stands.

A figure that was measured here is quoted from the file that holds it; a test looks whether it still does. Two were
measured when their stage was designed, and one for `docs/sizing.md`: they say so. No GPU was at hand, so there is no
figure of one.
"""

from typing import Final, NamedTuple


class Figure(NamedTuple):
    """`quote`: the words of `file` in which it stands; empty where no file but this one has it."""

    value: float
    unit: str
    what: str
    file: str
    quote: str = ""


EVENT_US: Final = Figure(
    147,
    "µs of CPU",
    "the context stage, for an event that makes history, with both hops, beside much other work",
    "benchmarks/context_stage.py",
    "29 of 147 us of CPU an event",
)
TRENDING_EVENTS_PER_S: Final = Figure(
    8_000,
    "events/s",
    "a trending worker, measured at its design; no benchmark repeats it",
    "nearline/sizing/figures.py",
)
DEMO_TOKENS_PER_S: Final = Figure(
    25_000,
    "tokens/s",
    "the demo's package on one core (40 µs of CPU a token: 95,090 tokens of 1,500 posts, AMD EPYC, beside much other "
    "work)",
    "docs/sizing.md",
    "40 µs of CPU a token",
)
QDRANT_POINTS_PER_S: Final = Figure(
    16_200,
    "points/s",
    "writes in bulk to Qdrant 1.19 on one machine, measured at its design; no benchmark repeats it",
    "nearline/sizing/figures.py",
)
SCAN_NS: Final = Figure(
    29,
    "ns a point",
    "a cold search without a graph, int8, 128 numbers, two threads",
    "indexer/cold/edge/shards.py",
    "points in 29 ms",
)
POINT_BYTES: Final = Figure(
    250,
    "bytes",
    "memory of a point in the cold tier, beside 2.5 bytes for each number of its vector",
    "nearline/generations/room.py",
    "_POINT_BYTES: Final = 250",
)
POINT_BYTES_A_NUMBER: Final = Figure(
    2.5, "bytes", "likewise", "nearline/generations/room.py", "_POINT_BYTES_A_NUMBER: Final = 2.5"
)
HOT_POST_BYTES: Final = Figure(
    250,
    "bytes",
    "memory of a post in the hot tier, beside its vector",
    "nearline/generations/room.py",
    "_HOT_POST_BYTES: Final = 250",
)
MEMBER_LIST_BYTES: Final = Figure(
    4_000,
    "bytes",
    "lists of a member that a retriever keeps, at most",
    "docs/serving.md",
    "their lists, at most 4 KB",
)
SERVE_BYTES: Final = Figure(
    1e9, "bytes", "a retriever's model, libraries and Python", "docs/serving.md", "beside 1 GB for the model and Python"
)
ENCODE_BYTES: Final = Figure(
    620e6,
    "bytes",
    "an encode process, beside its weights",
    "nearline/generations/room.py",
    "_TORCH_BYTES: Final = 620_000_000",
)
ALL: Final = (
    EVENT_US,
    TRENDING_EVENTS_PER_S,
    DEMO_TOKENS_PER_S,
    QDRANT_POINTS_PER_S,
    SCAN_NS,
    POINT_BYTES,
    POINT_BYTES_A_NUMBER,
    HOT_POST_BYTES,
    MEMBER_LIST_BYTES,
    SERVE_BYTES,
    ENCODE_BYTES,
)
