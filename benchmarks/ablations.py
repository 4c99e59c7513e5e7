"""What each of the papers' findings is worth here: arm against arm at equal tokens, on a made-up feed whose truth is
known.

Every arm is trained by the trainer's own steps (`benchmarks.kit.ablations.arms` has the settings) and measured on one
task: at the cut each member shall find those of the live posts, with their counts as published by then, on which it
acts later (`benchmarks.kit.ablations.task`). "Better" is the share of a paired bootstrap's resamples over members, each
the mean of its seeds. "Not worse" asks that this share be at least 0.05. A bound that does not hold is a result.

`interests` compares no arms: members of the base's packages are asked for with one vector, and with one for each of
their interests beside it. How long the retriever takes for several vectors is in `benchmarks.retrieval`.

    python -m benchmarks.ablations [--quick] [--only numbers loss history form interests pooling oracle] [--json F]

The whole is made for two cores and an hour; `--quick` for five minutes, with a smaller feed, fewer tokens and one seed.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.kit.ablations.arms import (
    BASE,
    CROSS_ENTROPY,
    IMPRESSIONS,
    LAST,
    MEAN_FORM,
    NO_NEGATIVES,
    NO_NUMBERS,
    ONE_NEGATIVE,
    PARTS,
    RAW,
    Arm,
    Scale,
)
from benchmarks.kit.ablations.interests import (
    Answers,
    TrueInterests,
    interest_figures,
    true_interests,
)
from benchmarks.kit.ablations.measure import Measuring, Values, by_name
from benchmarks.kit.ablations.task import LENGTHS, LiveTask, feed_of, live_task
from benchmarks.kit.table import Figure, report
from nearline.demo.made_feed.feed import make_feed
from nearline.demo.made_feed.shape import MEDIUM, FeedSize
from trainer.evaluation.ranking_metrics import share_better

_NOW: Final = datetime(2026, 1, 20, tzinfo=UTC)
_NOT_WORSE: Final = 0.05
_BETTER: Final = 0.95
_PROFILE_ONLY: Final = "profile alone"
"""The members whom the pipeline knew by their profile alone. Of those without a positive action some have written, and
some have no profile."""
POPULARITY: Final = "popularity"
ORACLE: Final = "oracle"


class Results(NamedTuple):
    task: LiveTask
    arms: dict[str, Values]
    interests: TrueInterests | None
    """None where nobody asked."""
    answers: dict[str, Answers]
    """With one vector and with several. Empty where nobody asked."""


class Size(NamedTuple):
    world: FeedSize
    tokens: int
    """Of each training."""
    seeds: int
    scale: Scale = Scale()


WHOLE: Final = Size(MEDIUM, tokens=3_000_000, seeds=3)
QUICK: Final = Size(FeedSize(posts=5_000, members=3_000, activity=240_000, days=14.0), tokens=500_000, seeds=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--tokens", type=int, help="of each training")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--json", type=Path, help="the table; beside it, .arms.json, what was measured of each arm")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else WHOLE
    size = size._replace(tokens=arguments.tokens or size.tokens, seeds=arguments.seeds or size.seeds)
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as folder:
        arms_json = None if arguments.json is None else arguments.json.with_suffix(".arms.json")
        results = run(size, arguments.only, Path(folder), arms_json)
    return report(figures(results, arguments.only), arguments.json)


def run(size: Size, parts: Sequence[str], folder: Path, arms_json: Path | None = None) -> Results:
    """Trains and measures the base and the arms of these parts. `arms_json` is written after each of them."""
    made = make_feed(0, _NOW, size.world)
    feed = feed_of(made)
    task = live_task(made, feed)
    print(f"{len(task.candidates)} candidates, {len(task.members)} members", flush=True)
    interests = true_interests(made, feed, task) if "interests" in parts else None
    measuring = Measuring(feed, task, size.scale, size.tokens, folder, interests=interests)
    arms: list[Arm] = [BASE, *(arm for part in parts for arm in PARTS[part])]
    values = {POPULARITY: measuring.popularity(), ORACLE: measuring.oracle()}
    for arm in arms:
        values[arm.name] = measuring.arm(arm, size.seeds)
        if arms_json is not None:
            arms_json.write_text(json.dumps(by_name(values), indent=2) + "\n")
    return Results(task, values, interests, measuring.answers())


def figures(results: Results, parts: Sequence[str]) -> list[Figure]:
    task = results.task
    tables = {
        "numbers": _numbers,
        "loss": _loss,
        "history": _history,
        "form": lambda arms: _form(task, arms),
        "interests": lambda _: _interests(results),
        "pooling": lambda arms: _compared(arms, LAST),
        "oracle": lambda arms: _oracle(task, arms),
    }
    return [figure for part in parts for figure in tables[part](results.arms)]


def _compared(arms: Mapping[str, Values], rival: Arm, bound: float | None = None) -> list[Figure]:
    base, other = arms[BASE.name].recall_10, arms[rival.name].recall_10
    ratio = float(base.mean() / max(other.mean(), 1e-9))
    return [
        Figure(f"Recall@10, base {base.mean():.4f} ÷ {rival.name} {other.mean():.4f}", ratio),
        Figure(f"Recall@10, base better than {rival.name}", share_better(base, other), bound),
    ]


def _numbers(arms: Mapping[str, Values]) -> list[Figure]:
    named = {"percentiles": arms[BASE.name], "raw numbers": arms[RAW.name], "no numbers": arms[NO_NUMBERS.name]}
    rows: list[Figure] = []
    for name, arm in named.items():
        rows += [
            Figure(f"correlation of popularity with score, {name}", arm.correlation),
            Figure(f"the same of popularity as counted, {name}", arm.raw_correlation),
        ]
    percentiles, raw = arms[BASE.name].correlation, arms[RAW.name].correlation
    return [
        *_compared(arms, RAW, _BETTER),
        *_compared(arms, NO_NUMBERS, _BETTER),
        *rows,
        Figure("correlation, percentiles - raw numbers", percentiles - raw, 0.1),
    ]


def _loss(arms: Mapping[str, Values]) -> list[Figure]:
    return [
        *_compared(arms, CROSS_ENTROPY, _BETTER),
        *_compared(arms, NO_NEGATIVES, _NOT_WORSE),
        *_compared(arms, ONE_NEGATIVE),
    ]


def _history(arms: Mapping[str, Values]) -> list[Figure]:
    tokens = arms[BASE.name].member_tokens / arms[IMPRESSIONS.name].member_tokens
    return [
        *_compared(arms, IMPRESSIONS, _NOT_WORSE),
        Figure("tokens a member, positives only ÷ all impressions", tokens, 0.7, "at_most"),
    ]


def _form(task: LiveTask, arms: Mapping[str, Values]) -> list[Figure]:
    rows: list[Figure] = []
    groups = {_PROFILE_ONLY: task.profile_only_M}
    groups |= {f"history {name}": task.of_length(name) for name, _, _ in LENGTHS}
    for name, of_group in groups.items():
        if of_group.any():
            prompt, mean = (arms[arm.name].recall_100[of_group] for arm in (BASE, MEAN_FORM))
            bound = _BETTER if name == _PROFILE_ONLY else None
            rows += [
                Figure(f"Recall@100, member as prompt, {name} ({of_group.sum()})", float(prompt.mean())),
                Figure(f"Recall@100, member as mean, {name}", float(mean.mean())),
                Figure(f"prompt better, {name}", share_better(prompt, mean), bound),
            ]
    return rows


def _interests(results: Results) -> list[Figure]:
    assert results.interests is not None, "they were asked for"
    return interest_figures(results.task, results.interests, results.answers)


def _oracle(task: LiveTask, arms: Mapping[str, Values]) -> list[Figure]:
    base, popular, oracle = arms[BASE.name], arms[POPULARITY], arms[ORACLE]
    profile_only = task.profile_only_M
    rows = [
        Figure("share of what the oracle's best 100 hold", float(base.oracle_share.mean()), 0.6),
        Figure("the same, popularity", float(popular.oracle_share.mean())),
        Figure("Recall@100 ÷ the oracle's, later actions", float(base.recall_100.mean() / oracle.recall_100.mean())),
        Figure("Recall@100, the oracle", float(oracle.recall_100.mean())),
    ]
    if profile_only.any():
        ratio = base.recall_100[profile_only].mean() / np.maximum(popular.recall_100[profile_only].mean(), 1e-9)
        rows.append(Figure(f"Recall@100, {_PROFILE_ONLY} ÷ popularity", float(ratio), 3.0))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
