"""`nearline train`: trains a model package on recorded events."""

from pathlib import Path

import click

from nearline.commands._options import package_id_of
from nearline.commands._terminal import on_terminal


@click.command()
@click.option("--events", required=True, multiple=True, help="JSON lines, or .gz; may be given several times.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new package; must not be there yet.")
@click.option("--from", "start", type=click.Path(path_type=Path, file_okay=False, exists=True),
              help="A package or a Hugging Face LLaMA folder; else from nothing.")  # fmt: skip
@click.option("--tokens", type=click.IntRange(1), default=15_000_000, show_default=True, help="Of training.")
@click.option("--holdout", type=click.FloatRange(0, 1, max_open=True), default=0.15, show_default=True,
              help="The newest share of the actions: nothing is learned from them.")  # fmt: skip
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The same gives the same package, on the same processor with as many threads.",
)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings of the training, in TOML.")
@click.option("--id", "package_id", help="Begins the generation's name; else made of the folder's name.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of a training that was ended.")
def train(
    *,
    events: tuple[str, ...],
    out: Path,
    start: Path | None,
    tokens: int,
    holdout: float,
    seed: int,
    config: Path | None,
    package_id: str | None,
    resume: bool,
) -> None:
    """Train a model package on recorded events and write it to a folder.

    Held out actions, and every post from the first of them on, teach nothing; the package is measured on them, and its
    training record says the figures. Checkpoints lie beside the folder until the package is written.

    \b
    Example:
      nearline train --events events.jsonl.gz --out my-package
      nearline train --events events.jsonl.gz --out my-package --resume
    """
    from nearline.commands._recorded_events import read_feed
    from trainer.settings import read_settings
    from trainer.training import Plan, train

    settings = read_settings(config)
    feed = read_feed(events)
    plan = Plan(feed.cut(holdout), tokens, seed, settings, package_id or package_id_of(out), start)
    package = train(feed, plan, out, resume=resume, progress=on_terminal())
    if package is None:  # another process writes it
        return
    for result in package.manifest.training.get("figures", []):
        recalls = ", ".join(f"@{k} {value:.3f}" for k, value in result["groups"]["protocol"]["recall"].items())
        click.echo(f"recall, history {result['history']}: {recalls}", err=True)
    click.echo(package.generation)
