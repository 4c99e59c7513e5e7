"""How much slower the encoder is when one post in 50 makes the model fail, compared with posts that all succeed. The
model fails at the end of a batch, when all its work is done: no record can cost more. Both kinds of batches alternate,
because machines drift.

`python -m benchmarks.poison [--seconds S] [--hidden N] [--layers N] [--events F] [--json F]`. Texts come from the posts
in F, or are generated.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.kit.packages import layout, random_package, texts
from benchmarks.kit.table import Figure, report
from encoders.encoder import Encoder
from encoders.errors import Unencodable
from schemas.contexts import PostContext
from schemas.ids import Micros, PostId, Revision
from streams.settings import EncodeSettings

EVERY: Final = 50
THREADS: Final = 2
_POISON: Final = "\x01"
"""The tokenizer gives it a token of its own, and no other text has it."""


class _FailingModel:
    """A model that fails on one token, after all the work."""

    def __init__(self, model: Any, token: int) -> None:
        self._model = model
        self._token = token

    def __call__(self, **inputs: Any) -> Any:
        output = self._model(**inputs)
        if (inputs["input_ids"] == self._token).any():
            raise ValueError("poison")
        return output


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--events", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    settings = EncodeSettings()
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as folder:
        package = random_package(Path(folder) / "package", layout(arguments.hidden, arguments.layers))
        encoder = Encoder.load(package, device="cpu", threads=THREADS, budget_tokens=settings.budget_tokens)
    token = encoder._prompts._tokenizer(_POISON)[0]
    encoder._model.forward.model = _FailingModel(encoder._model.forward.model, token)  # type: ignore[assignment]
    numbers, posts = itertools.count(), texts(arguments.events)
    seconds = {"clean": 0.0, "poisoned": 0.0}
    num_posts = dict.fromkeys(seconds, 0)
    num_wrong = 0
    while sum(seconds.values()) < arguments.seconds:
        for name, every in (("clean", 0), ("poisoned", EVERY)):
            contexts = _contexts(posts, numbers, settings.batch_records, every)
            start = time.perf_counter()
            outcomes = encoder.encode_posts(contexts)
            seconds[name] += time.perf_counter() - start
            num_posts[name] += len(contexts)
            num_wrong += sum(
                isinstance(outcome, Unencodable) != (_POISON in context.text)
                for context, outcome in zip(contexts, outcomes, strict=True)
            )
    rates = {name: num_posts[name] / seconds[name] for name in seconds}
    figures = [
        Figure("no post fails, posts/s", rates["clean"]),
        Figure(f"one post in {EVERY} fails, posts/s", rates["poisoned"]),
        Figure(f"one in {EVERY} fails / none fails", rates["poisoned"] / rates["clean"], 0.5),
        Figure("wrong outcomes: a good post refused, or a failing one encoded", num_wrong, 0, "at_most"),
    ]
    return report(figures, arguments.json)


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
