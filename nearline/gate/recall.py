"""Check 3: the package finds what members act on next, as well as the serving one's does.

Measured is what came after the training of both, with the contexts of members as they were before each action. By
chance alone one of two equal packages is always a little worse: it fails only if a paired bootstrap over members says
that it is worse nearly always.
"""

from collections.abc import Iterator
from typing import Final

from encoders.package.model_package import ModelPackage
from nearline.gate.figures import at_most, unmeasured
from nearline.gate.names import RECALL, RECALL_CUTOFFS
from schemas.generations import GateFigure
from schemas.ids import Micros
from schemas.times import from_rfc3339, to_rfc3339
from trainer.data.feed import Feed
from trainer.evaluation.next_actions import NextActions, next_actions, ranks_by_package, recalls
from trainer.evaluation.package_vectors import PackageVectors
from trainer.evaluation.ranking_metrics import Ranks, share_better

WORSE_BEYOND_CHANCE: Final = 0.975
"""Of the resamples: the two-sided 95 % interval of the difference is then below zero."""
LEAST_ACTIONS: Final = 100
"""With so many, a recall of one half is known to 0.1."""
LEAST_MEMBERS: Final = 20
"""Members are resampled: with fewer, a bootstrap makes an interval too narrow."""


def recall_figures(feed: Feed, package: ModelPackage, serving: ModelPackage, device: str) -> Iterator[GateFigure]:
    """Each figure is the share of the resamples in which the serving package finds more. Raises PackageError."""
    ends_us = [until for each in (package, serving) if (until := trained_until(each)) is not None]
    actions = next_actions(feed, max(ends_us, default=Micros(0)))
    num_members = len(set(actions.members))
    if len(actions.targets) < LEAST_ACTIONS or num_members < LEAST_MEMBERS:
        after = f" after {to_rfc3339(max(ends_us))}, when both were trained" if ends_us else ""
        why = (
            f"there are {len(actions.targets)} actions of {num_members} members on posts of their time{after}, and it "
            f"takes {LEAST_ACTIONS} of {LEAST_MEMBERS}; give more with --events, or promote with --force --reason TEXT"
        )
        yield from (unmeasured(name, why, WORSE_BEYOND_CHANCE) for name in RECALL)
        return
    ranks, serving_ranks = (_ranks(actions, each, device) for each in (package, serving))
    untold = [str(each.generation) for each in (package, serving) if trained_until(each) is None]
    for name, k in zip(RECALL, RECALL_CUTOFFS, strict=True):
        yield _figure(name, k, actions, ranks, serving_ranks, untold=untold)


def trained_until(package: ModelPackage) -> Micros | None:
    """None for a package that does not say it: it was not trained by `nearline train`."""
    until = package.manifest.training.get("until")
    return None if until is None else from_rfc3339(str(until))


def _ranks(actions: NextActions, package: ModelPackage, device: str) -> Ranks:
    return ranks_by_package(actions, PackageVectors(package, device=device), package.dimension)


def _figure(
    name: str, k: int, actions: NextActions, ranks: Ranks, serving_ranks: Ranks, *, untold: list[str]
) -> GateFigure:
    own, of_serving = recalls(actions, ranks, k), recalls(actions, serving_ranks, k)
    worse = share_better(of_serving, own)
    note = (
        f"recall {own.mean():.3f}, the serving one's {of_serving.mean():.3f}, of {len(ranks)} actions by {len(own)} "
        f"members since {to_rfc3339(actions.since_us)}"
    )
    if actions.most_candidates <= k:
        note += f"; there were only {actions.most_candidates} posts, so every package finds all of them"
    if untold:
        says = "does not say until when it was" if len(untold) == 1 else "do not say until when they were"
        note += f"; {' and '.join(untold)} {says} trained, so these actions may be known already"
    if worse > WORSE_BEYOND_CHANCE:
        note += "; it finds less beyond chance: train it longer or on newer events"
    return at_most(name, worse, WORSE_BEYOND_CHANCE, note)
