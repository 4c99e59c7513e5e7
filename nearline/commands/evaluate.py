"""`nearline evaluate`: measures how well packages find what members acted on, beside plain baselines."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from nearline.commands._options import NumberRange, OutputFile, checked_device
from nearline.commands._terminal import on_terminal, print_table

if TYPE_CHECKING:
    from encoders.package.model_package import ModelPackage
    from trainer.evaluation.evaluation import Evaluation, Measured
    from trainer.evaluation.popularity_correlation import Correlation
    from trainer.evaluation.ranker_feature import RankerGain
    from trainer.evaluation.task_figures import TaskFigures

_HEADER = ("system", "history", "form", "dim", "members", "R@10", "R@100", "R@500", "R@2000", "NDCG", "R@100 95 %")


@click.command()
@click.argument("packages", nargs=-1, type=click.Path(path_type=Path, file_okay=False))
@click.option("--events", required=True, multiple=True, help="JSON lines, or .gz; may be given several times.")
@click.option("--holdout", type=NumberRange(0, 1, True, True), default=0.15, show_default=True,
              help="The newest share of the actions: what is measured.")  # fmt: skip
@click.option("--baseline", "baselines", multiple=True, type=click.Path(path_type=Path, file_okay=False, exists=True),
              help="A folder of sentence-transformers, measured too; may be given several times.")  # fmt: skip
@click.option("--json", "json_file", type=OutputFile(), help="All figures, here.")
@click.option("--picture", type=OutputFile(), help="Recall against k, here (.png, .svg).")
@click.option("--device", default="auto", show_default=True, callback=checked_device, help="auto, cpu, cuda or cuda:N.")
def evaluate(
    *,
    packages: tuple[Path, ...],
    events: tuple[str, ...],
    holdout: float,
    baselines: tuple[Path, ...],
    json_file: Path | None,
    picture: Path | None,
    device: str,
) -> None:
    """Measure PACKAGES on recorded events, beside TF-IDF, BM25, popularity, chance and the untrained start.

    What is measured: each member with at least five positive actions before the held out ones shall find the fresh
    posts that it acts on, among all fresh posts. `history` says what of a member was used: the posts it acted on, or
    those and the ones that it wrote. `form`: a member as one prompt, or as the mean of vectors; the package says which
    it uses, both are measured. Then, for each counted action: how its counts, and their percentiles by the package's
    tables, go together with the mean score of a post; and, where the events have impressions, what a package's cosine
    adds to a logistic ranker. Last, the tasks interest, storyline, tag and search, as far as the held out posts have
    anything for them: how well a post without its label finds others of the same label, and a title its body.

    \b
    Example:
      nearline evaluate my-package other-package --events events.jsonl.gz --picture recall.png
    """
    from encoders.package.model_package import ModelPackage
    from nearline.commands._recorded_events import read_feed
    from trainer.evaluation.evaluation import Evaluation
    from trainer.evaluation.report import report
    from trainer.evaluation.sentence_model import refuse_folders
    from trainer.evaluation.task import evaluation_task
    from trainer.evaluation.task_figures import held_out_tasks, measure_tasks

    loaded = [ModelPackage.load(folder) for folder in packages]
    refuse_folders(baselines)
    feed = read_feed(events)
    evaluation = Evaluation(feed, evaluation_task(feed, feed.cut(holdout)))
    measurements = _measure(evaluation, loaded, baselines, device)
    correlations = {str(each.generation): evaluation.popularity_correlations(each, device=device) for each in loaded}
    of_packages = ((each.generation, evaluation.ranker_gain(each, device=device)) for each in loaded)
    gains = {str(generation): gain for generation, gain in of_packages if gain is not None}
    held_out = held_out_tasks(feed, evaluation.task.cut_us)
    tasks = {
        str(package.generation): [measured.figures for measured in measure_tasks(package, held_out, device=device)]
        for package in loaded
    }
    _print(measurements)
    _print_correlations(correlations)
    _print_gains(gains)
    _print_tasks(tasks)
    if json_file is not None:
        json_file.write_bytes(report(evaluation, measurements, correlations, gains, tasks))
    if picture is not None:
        _draw(evaluation, measurements, picture)


def _measure(
    evaluation: "Evaluation", packages: "list[ModelPackage]", baselines: tuple[Path, ...], device: str
) -> "list[Measured]":
    from tqdm import tqdm

    systems = chain(
        chain.from_iterable(evaluation.package(package, both_forms=True, device=device) for package in packages),
        _untrained(evaluation, packages, device),
        (evaluation.folder(folder, device=device) for folder in baselines),
        evaluation.baselines(),
    )
    return list(tqdm(systems, desc="systems", disable=not on_terminal(), unit=""))


def _untrained(evaluation: "Evaluation", packages: "list[ModelPackage]", device: str) -> "Iterator[Measured]":
    """Of each package that was made from nothing. Of the others it says that there is none."""
    from trainer.evaluation.untrained import NOT_AT_HAND, untrained_start

    for package in packages:
        with TemporaryDirectory(prefix="nearline-untrained-") as folder:
            start = untrained_start(package, evaluation.feed, evaluation.task.cut_us, Path(folder) / "package")
            if start is None:
                click.echo(f"the untrained start of {package.generation} is not measured: {NOT_AT_HAND}", err=True)
            else:
                yield evaluation.as_served(start, name=f"untrained {package.generation}", device=device)


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


def _print_gains(gains: "dict[str, RankerGain]") -> None:
    header = ("system", "impressions", "acted on", "without", "with its cosine", "better in")
    rows = [
        (name, gain.impressions, gain.acted, gain.auc_without, gain.auc_with, f"{gain.share_better:.0%}")
        for name, gain in gains.items()
    ]
    if rows:
        click.echo("\nAUC of a logistic ranker of popularity and author, later half of the held out impressions:")
        print_table(header, rows)


def _print_tasks(tasks: "dict[str, list[TaskFigures]]") -> None:
    rows = [
        (name, figures.task, figures.queries, figures.candidates, figures.recall_100, figures.auc)
        for name, of_package in tasks.items()
        for figures in of_package
    ]
    if rows:
        click.echo("\ntasks on held out posts:")
        print_table(("system", "task", "queries", "posts", "R@100", "AUC"), rows)


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
