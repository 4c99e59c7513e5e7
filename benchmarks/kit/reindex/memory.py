"""How much more memory the retriever needs for two generations than for one."""

import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from benchmarks.kit.pipeline_load import write_posts
from benchmarks.kit.reindex.instance import Model, build_and_open, serving, two_packages, until_open
from benchmarks.kit.table import Figure
from nearline.pipeline import Pipeline
from nearline.up.names import SERVE
from schemas.api import MAX_K, RetrieveRequest

_WORDS: Final = 6
"""Of each post: the model takes little time for it, and the vector is as large as any."""
_QUESTIONS: Final = 50
"""To each generation, so that it has used what it needs for an answer."""
_SAMPLES: Final = 5
_SAMPLE_EVERY_S: Final = 2.0


class Memory(NamedTuple):
    """Resident, in MB. It does not depend on how many other processes map the same pages, as PSS does."""

    all: float
    without_libraries: float
    """Without the code of shared libraries, which is there once however many generations are open. The weights of a
    model count, although they are pages of a file too."""


class MemorySizes(NamedTuple):
    model: Model
    posts: int


def memory(folder: Path, sizes: MemorySizes, texts: list[str]) -> list[Figure]:
    """Both packages have the same model's size, and all posts are in the hot tier. The instance is started again before
    each of the two measurements, so that what was needed only to take in so many posts at once does not count."""
    package, other = two_packages(folder, sizes.model)
    write_posts(folder / "posts.jsonl", [" ".join(text.split()[:_WORDS]) for text in texts], range(sizes.posts))
    with serving(folder, package, folder / "posts.jsonl", sizes.posts) as pipeline:
        before = pipeline.instance.generation
        one = _memory(pipeline, [before])
        generation = build_and_open(pipeline, other)
        two = _memory(pipeline, [before, generation])
    return memory_figures(one, two, sizes.posts)


def memory_figures(one: Memory, two: Memory, num_posts: int) -> list[Figure]:
    ratio = two.without_libraries / one.without_libraries
    return [
        Figure("memory: posts of each generation", num_posts),
        Figure("memory of serve with one generation, MB (RSS)", one.all),
        Figure("memory of serve with two generations, MB (RSS)", two.all),
        Figure("memory of serve with one generation, MB (RSS without the code of libraries)", one.without_libraries),
        Figure("memory of serve with two generations, MB (RSS without the code of libraries)", two.without_libraries),
        Figure("memory of serve with two generations / with one (RSS)", two.all / one.all),
        Figure(
            "memory of serve with two generations / with one (without the code of libraries)", ratio, 1.8, "at_most"
        ),
    ]


def _memory(pipeline: Pipeline, generations: Sequence[str]) -> Memory:
    pipeline.stop()
    pipeline.start()
    for generation in generations[1:]:
        until_open(pipeline, generation)
    with closing(pipeline.client()) as client:
        for generation in generations:
            for number in range(_QUESTIONS):
                client.retrieve(RetrieveRequest(text=f"question {number}", k=MAX_K, generation=generation))
    (pid,) = (process.pid for process in pipeline.instance.processes if process.name == SERVE)
    samples = []
    for _ in range(_SAMPLES):
        time.sleep(_SAMPLE_EVERY_S)
        samples.append(resident_memory(pid))
    return Memory(*(statistics.median(values) for values in zip(*samples, strict=True)))


def resident_memory(pid: int | None) -> Memory:
    sizes = {mapped.path: mapped.rss / 1e6 for mapped in psutil.Process(pid).memory_maps()}
    libraries = sum(size for path, size in sizes.items() if ".so" in Path(path).suffixes)
    return Memory(sum(sizes.values()), sum(sizes.values()) - libraries)
