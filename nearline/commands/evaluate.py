"""`nearline evaluate`: measures how well packages find what members acted on, beside plain baselines."""

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearline.commands._terminal import on_terminal, print_table

if TYPE_CHECKING:
    from encoders.package.model_package import ModelPackage
    from trainer.evaluation.evaluation import Evaluation, Measured
    from trainer.evaluation.popularity_correlation import Correlation

_HEADER = ("system", "history", "form", "dim", "members", "R@10", "R@100", "R@500", "R@2000", "NDCG", "R@100 95 %")


@click.command()
@click.argument("packages", nargs=-1, type=click.Path(path_type=Path, file_okay=False))
@click.option("--events", required=True, multiple=True, help="JSON lines, or .gz; may be given several times.")
@click.option("--holdout", type=click.FloatRange(0, 1, True, True), default=0.15, show_default=True,
              help="The newest share of the actions: what is measured.")  # fmt: skip
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="All figures, here.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Recall against k, here (.png, .svg).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def evaluate(
    *,
    packages: tuple[Path, ...],
    events: tuple[str, ...],
    holdout: float,
    json_file: Path | None,
    picture: Path | None,
    device: str,
) -> None:
    """Measure PACKAGES on recorded events, beside TF-IDF, BM25, popularity and chance.

    What is measured: each member with at least five positive actions before the held out ones shall find the fresh
    posts that it acts on, among all fresh posts. `history` says what of a member was used: the posts it acted on, or
    those and the ones that it wrote. `form`: a member as one prompt, or as the mean of vectors; the package says which
    it uses, both are measured. Last, for each counted action: how its counts, and their percentiles by the package's
    tables, go together with the mean score of a post.

    \b
    Example:
      nearline evaluate my-package other-package --events events.jsonl.gz --picture recall.png
    """
    from encoders.package.model_package import ModelPackage
    from nearline.commands._recorded_events import read_feed
    from trainer.evaluation.evaluation import Evaluation
    from trainer.evaluation.report import report
    from trainer.evaluation.task import evaluation_task

    loaded = [ModelPackage.load(folder) for folder in packages]
    feed = read_feed(events)
    evaluation = Evaluation(feed, evaluation_task(feed, feed.cut(holdout)))
    measurements = _measure(evaluation, loaded, device)
    correlations = {
        str(package.generation): evaluation.popularity_correlations(package, device=device) for package in loaded
    }
    _print(measurements)
    _print_correlations(correlations)
    if json_file is not None:
        json_file.write_bytes(report(evaluation, measurements, correlations))
    if picture is not None:
        _draw(evaluation, measurements, picture)


def _measure(evaluation: "Evaluation", packages: "list[ModelPackage]", device: str) -> "list[Measured]":
    from tqdm import tqdm

    of_packages = (evaluation.package(package, both_forms=True, device=device) for package in packages)
    systems = chain(chain.from_iterable(of_packages), evaluation.baselines())
    return list(tqdm(systems, desc="systems", disable=not on_terminal(), unit=""))


def _draw(evaluation: "Evaluation", measurements: "list[Measured]", picture: Path) -> None:
    from trainer.evaluation.recall_plot import draw_recall

    ks = [k for k in range(1, len(evaluation.task.candidates) + 1) if k <= 2000]
    curves = {_name(measured): evaluation.curve(measured, ks) for measured in measurements if _is_main(measured)}
    draw_recall(curves, ks, picture)


def _print(measurements: "list[Measured]") -> None:
    print_table(_HEADER, [_row(measured, "protocol") for measured in measurements])
    click.echo("\nby length of history, every member with a target:")
    main = [measured for measured in measurements if _is_main(measured)]
    rows = [(group, *_row(measured, group)) for measured in main for group in measured.result.groups]
    print_table(("length", *_HEADER), [row for row in sorted(rows, key=_by_length) if row[0] != "protocol"])


def _print_correlations(correlations: "dict[str, list[Correlation]]") -> None:
    rows = [
        (name, correlation.field, correlation.posts, correlation.raw, correlation.percentile)
        for name, of_package in correlations.items()
        for correlation in of_package
    ]
    if rows:
        click.echo("\ncorrelation of popularity with the score, newest posts before the held out ones:")
        print_table(("system", "count", "posts", "raw counts", "percentiles"), rows)


def _row(measured: "Measured", group: str) -> tuple[object, ...]:
    result = measured.result
    figures = result.groups[group]
    low, high = figures.intervals["100"]
    recalls = figures.recall.values()
    return (result.system, result.history, result.form, result.dimension, figures.members, *recalls, figures.ndcg,
            f"{low:.3f} to {high:.3f}")  # fmt: skip


def _by_length(row: tuple[object, ...]) -> int:
    return int(str(row[0]).strip("+").split("-")[0]) if row[0] != "protocol" else -1


def _is_main(measured: "Measured") -> bool:
    """False for the shorter dimensions to which a package's vectors were cut."""
    return measured.result.is_main


def _name(measured: "Measured") -> str:
    return f"{measured.result.system} ({measured.result.history})"
