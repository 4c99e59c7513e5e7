"""Measures the encoder alone, and a whole pipeline under a steady load. Three benchmarks compare the two."""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.kit.background import in_background
from encoders.model.kernels import COMPILER
from nearline.pipeline import Pipeline
from schemas.contexts import PostContext
from schemas.ids import Micros, PostId, Revision
from streams.settings import EncodeSettings

ENCODE_THREADS: Final = 2
_COUNT_EVERY_S: Final = 15.0
_WARM_UP_POSTS: Final = 64
LOAD_PREFIX: Final = "load-"
"""The ids of the posts of a load begin with it."""
_AUTHOR: Final = "author"


class PipelineLoad(NamedTuple):
    """What was seen of a pipeline under load."""

    counts: list[tuple[float, int]]
    """Again and again: the time in seconds, and how many posts were in both tiers."""
    p50_s: float | None
    p99_s: float | None

    def rate(self) -> float:
        """Posts/s without the first tenth of the time, in which the pipeline warms up."""
        steady = self.counts[len(self.counts) // 10 :]
        (start, first), (end, last) = steady[0], steady[-1]
        return (last - first) / (end - start)


def variants() -> list[bool]:
    """Of `encode.compile`: the default, and where there is a compiler the other one too."""
    return [False, True] if shutil.which(COMPILER) else [False]


def variant_name(compiled: bool) -> str:
    return "compile = true" if compiled else "compile = false, the default"


def encoder_alone(package: Path, texts_file: Path, seconds: float, *, compiled: bool = False) -> float:
    """Posts/s of the encoder in a process of its own with two threads, while nothing else runs."""
    command = [sys.executable, "-m", "benchmarks.kit.pipeline_load", str(package), str(texts_file), str(seconds)]
    command += ["--compile"] if compiled else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def pipeline_load(
    folder: Path,
    package: Path,
    texts: Sequence[str],
    rate: float,
    seconds: float,
    *,
    compiled: bool = False,
    settings: Mapping[str, str] | None = None,
    beside: Callable[[Pipeline, threading.Event], None] = lambda _, stop: None,
    count_every_s: float = _COUNT_EVERY_S,
) -> PipelineLoad:
    """Sends `rate` posts a second for so many seconds, and counts the posts in both tiers meanwhile. `settings` are of
    the environment. `beside` runs in a thread until its event is set."""
    events = folder / "load.jsonl"
    write_posts(events, texts, range(round(rate * seconds)))
    environment = {
        "NEARLINE_ENCODE__THREADS": str(ENCODE_THREADS),
        "NEARLINE_ENCODE__COMPILE": str(compiled),
        "NEARLINE_HOT__CAPACITY": str(round(rate * seconds) + 1),
        "NEARLINE_LOG_LEVEL": "warning",
        # What is counted is what was sent here.
        "NEARLINE_MONITOR__CANARY_S": "0",
        **(settings or {}),
    }
    with Pipeline(folder / "data", package=package, environment=environment) as pipeline:
        # `ready` only speaks for the retriever. When a first post has come through, all stages run.
        pipeline.ingest([post_created("first", "a first post", moment())])
        pipeline.wait()
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool, in_background(lambda stop: beside(pipeline, stop)):
            sent = pool.submit(pipeline.run, "ingest", events, "--rate", str(rate), timeout_s=seconds + 600)
            sent.add_done_callback(lambda _: stop.set())
            counts = list(_posts_in_both_tiers(pipeline, stop, count_every_s))
            sent.result()
        with closing(pipeline.client()) as client:
            fresh = client.status().freshness_s
    return PipelineLoad(counts, fresh.p50, fresh.p99)


def _posts_in_both_tiers(pipeline: Pipeline, stop: threading.Event, every_s: float) -> Iterator[tuple[float, int]]:
    with closing(pipeline.client()) as client:
        while not stop.wait(every_s):
            tiers = client.status().tiers
            if tiers.cold.posts is not None and tiers.hot.posts is not None:
                yield time.monotonic(), min(tiers.cold.posts, tiers.hot.posts)


def write_posts(file: Path, texts: Sequence[str], numbers: Iterable[int]) -> None:
    """Events that create the posts with these numbers. Each number has a text of its own."""
    now = moment()
    with file.open("w", encoding="utf-8") as out:
        # The author is deleted; otherwise each post would be encoded again as an entry of its author's history.
        out.write(json.dumps({"type": "member.deleted", "member_id": _AUTHOR, "at": now}) + "\n")
        for number in numbers:
            out.write(json.dumps(post_created(f"{LOAD_PREFIX}{number}", _distinct(texts, number), now)) + "\n")


def post_created(post_id: str, text: str, at: str) -> dict[str, str]:
    return {
        "type": "post.created",
        "post_id": post_id,
        "author_id": _AUTHOR,
        "text": text,
        "language": "en",
        "created_at": at,
    }


def moment() -> str:
    """Now, as events have it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _encode(package: Path, texts: Sequence[str], seconds: float, *, compiled: bool) -> float:
    from encoders.encoder import Encoder

    settings = EncodeSettings()
    encoder = Encoder.load(
        package, device="cpu", threads=ENCODE_THREADS, budget_tokens=settings.budget_tokens, compiled=compiled
    )
    numbers = itertools.count()
    encoder.encode_posts(_contexts(texts, numbers, _WARM_UP_POSTS))
    start, num_posts = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        num_posts += len(encoder.encode_posts(_contexts(texts, numbers, settings.batch_records)))
    return num_posts / (time.monotonic() - start)


def _contexts(texts: Sequence[str], numbers: Iterator[int], num_posts: int) -> list[PostContext]:
    return [
        PostContext(PostId(f"{LOAD_PREFIX}{number}"), Revision(1), Micros(0), text=_distinct(texts, number))
        for number in itertools.islice(numbers, num_posts)
    ]


def _distinct(texts: Sequence[str], number: int) -> str:
    """A text that comes only once: a repeated one would cost the encoder nothing."""
    return f"{number} {texts[number % len(texts)]}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints the posts/s of the encoder alone.")
    parser.add_argument("package", type=Path)
    parser.add_argument("texts", type=Path, help="a JSON list")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    texts = json.loads(arguments.texts.read_text())
    print(_encode(arguments.package, texts, arguments.seconds, compiled=arguments.compile))


if __name__ == "__main__":
    main()
