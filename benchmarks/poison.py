"""Posts/s of the encoder where one in every 50 makes it fail, against the same posts without it.

`python -m benchmarks.poison [--seconds S] [--hidden N] [--layers N] [--events F] [--json F]`. The model fails when all
the work of a batch is done, which is the most that a poison record can cost. By turns, because machines drift.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks._packages import layout, random_package, texts
from benchmarks._table import Figure, report
from encoders.encoder import Encoder
from encoders.errors import Unencodable
from schemas.contexts import PostContext
from schemas.ids import Micros, PostId, Revision
from streams.settings import EncodeSettings

EVERY: Final = 50
THREADS: Final = 2
_POISON: Final = "\x01"
"""A token of its own, and in no other text."""


class _FailsOn:
    """A model that fails on one token, when all the work is done."""

    def __init__(self, model: Any, token: int) -> None:
        self._model = model
        self._token = token

    def __call__(self, **inputs: Any) -> Any:
        found = self._model(**inputs)
        if (inputs["input_ids"] == self._token).any():
            raise ValueError("poison")
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--events", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    settings = EncodeSettings()
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as folder:
        package = random_package(Path(folder) / "package", layout(given.hidden, given.layers))
        encoder = Encoder.load(package, device="cpu", threads=THREADS, budget_tokens=settings.budget_tokens)
    token = encoder._prompts._tokenizer(_POISON)[0]
    encoder._model._model = _FailsOn(encoder._model._model, token)  # type: ignore[assignment]
    numbers, posts = itertools.count(), texts(given.events)
    took = {"clean": 0.0, "poisoned": 0.0}
    num = dict.fromkeys(took, 0)
    wrong = 0
    while sum(took.values()) < given.seconds:
        for name, every in (("clean", 0), ("poisoned", EVERY)):
            contexts = _contexts(posts, numbers, settings.batch_records, every)
            began = time.perf_counter()
            outcomes = encoder.encode_posts(contexts)
            took[name] += time.perf_counter() - began
            num[name] += len(contexts)
            wrong += sum(
                isinstance(outcome, Unencodable) != (_POISON in context.text)
                for context, outcome in zip(contexts, outcomes, strict=True)
            )
    rates = {name: num[name] / took[name] for name in num}
    figures = [
        Figure("no poison, posts/s", rates["clean"]),
        Figure(f"one poison in {EVERY}, posts/s", rates["poisoned"]),
        Figure("poisoned / clean", rates["poisoned"] / rates["clean"], 0.5),
        Figure("neighbours not encoded, or poison encoded", wrong, 0, "at_most"),
    ]
    return report(figures, given.json)


def _contexts(posts: Sequence[str], numbers: Iterator[int], num_posts: int, every: int) -> list[PostContext]:
    """No text comes twice: a repeated one would cost the encoder nothing."""
    return [
        PostContext(
            PostId(f"p{number}"),
            Revision(1),
            Micros(0),
            text=f"{number} {_POISON if every and number % every == 0 else ''}{posts[number % len(posts)]}",
        )
        for number in itertools.islice(numbers, num_posts)
    ]


if __name__ == "__main__":
    raise SystemExit(main())
