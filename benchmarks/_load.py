"""The encoder alone, and a pipeline under a steady load: what `pipeline` and `freshness` compare."""

import argparse
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from nearline.pipeline import Pipeline
from schemas.contexts import PostContext
from schemas.ids import Micros, PostId, Revision
from streams.settings import EncodeSettings

ENCODE_THREADS: Final = 2
_LOOK_EVERY_S: Final = 15.0
_WARM_UP_POSTS: Final = 64
_AUTHOR: Final = "author"


class Load(NamedTuple):
    """Posts in both tiers, and when; and how fresh they were."""

    looks: list[tuple[float, int]]
    p50_s: float | None
    p99_s: float | None

    def rate(self) -> float:
        """Posts/s between the first tenth and the end: without the start."""
        steady = self.looks[len(self.looks) // 10 :]
        (began, first), (ended, last) = steady[0], steady[-1]
        return (last - first) / (ended - began)


def encoder_alone(package: Path, texts_file: Path, seconds: float) -> float:
    """Posts/s of the encoder in a process of its own, two threads, nothing beside it."""
    command = [sys.executable, "-m", "benchmarks._load", str(package), str(texts_file), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def pipeline_load(folder: Path, package: Path, texts: Sequence[str], rate: float, seconds: float) -> Load:
    """Sends that many posts a second for so long, and looks at both tiers meanwhile."""
    events = folder / "load.jsonl"
    _write_events(events, texts, round(rate * seconds))
    environment = {
        "NEARLINE_ENCODE__THREADS": str(ENCODE_THREADS),
        "NEARLINE_HOT__CAPACITY": str(round(rate * seconds) + 1),
        "NEARLINE_LOG_LEVEL": "warning",
    }
    with Pipeline(folder / "data", package=package, environment=environment) as pipeline:
        # `ready` is the retriever's word; a first post says that all stages are there.
        pipeline.ingest([_event("first", "a first post", _now())])
        pipeline.wait()
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(pipeline.run, "ingest", events, "--rate", str(rate), timeout_s=seconds + 600)
            sent.add_done_callback(lambda _: stop.set())
            looks = list(_looks(pipeline, stop))
            sent.result()
        with closing(pipeline.client()) as client:
            fresh = client.status().freshness_s
    return Load(looks, fresh.p50, fresh.p99)


def _looks(pipeline: Pipeline, stop: threading.Event) -> Iterator[tuple[float, int]]:
    with closing(pipeline.client()) as client:
        while not stop.wait(_LOOK_EVERY_S):
            tiers = client.status().tiers
            if tiers.cold.posts is not None and tiers.hot.posts is not None:
                yield time.monotonic(), min(tiers.cold.posts, tiers.hot.posts)


def _write_events(file: Path, texts: Sequence[str], num_posts: int) -> None:
    now = _now()
    with file.open("w", encoding="utf-8") as out:
        # A deleted author: else each post would also be encoded as a piece of its author's history.
        out.write(json.dumps({"type": "member.deleted", "member_id": _AUTHOR, "at": now}) + "\n")
        for number in range(num_posts):
            out.write(json.dumps(_event(f"load-{number}", _distinct(texts, number), now)) + "\n")


def _event(post_id: str, text: str, at: str) -> dict[str, str]:
    return {
        "type": "post.created",
        "post_id": post_id,
        "author_id": _AUTHOR,
        "text": text,
        "language": "en",
        "created_at": at,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _encode(package: Path, texts: Sequence[str], seconds: float) -> float:
    from encoders.encoder import Encoder

    settings = EncodeSettings()
    encoder = Encoder.load(package, device="cpu", threads=ENCODE_THREADS, budget_tokens=settings.budget_tokens)
    numbers = itertools.count()
    encoder.encode_posts(_contexts(texts, numbers, _WARM_UP_POSTS))
    began, done = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        done += len(encoder.encode_posts(_contexts(texts, numbers, settings.batch_records)))
    return done / (time.monotonic() - began)


def _contexts(texts: Sequence[str], numbers: Iterator[int], num_posts: int) -> list[PostContext]:
    return [
        PostContext(PostId(f"load-{number}"), Revision(1), Micros(0), text=_distinct(texts, number))
        for number in itertools.islice(numbers, num_posts)
    ]


def _distinct(texts: Sequence[str], number: int) -> str:
    """No text comes twice: a repeated one would cost the encoder nothing."""
    return f"{number} {texts[number % len(texts)]}"


def main() -> None:
    parser = argparse.ArgumentParser(description="The encoder alone: prints posts/s.")
    parser.add_argument("package", type=Path)
    parser.add_argument("texts", type=Path, help="a JSON list")
    parser.add_argument("seconds", type=float)
    arguments = parser.parse_args()
    print(_encode(arguments.package, json.loads(arguments.texts.read_text()), arguments.seconds))


if __name__ == "__main__":
    main()
