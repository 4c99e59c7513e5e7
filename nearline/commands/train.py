"""`nearline train`: trains a model package on recorded events."""

from pathlib import Path
from typing import Any

import click

from nearline.commands._options import NumberRange, package_id_of
from nearline.commands._terminal import on_terminal


@click.command()
@click.option("--events", required=True, multiple=True, help="JSON lines, or .gz; may be given several times.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new package; must not be there yet.")
@click.option("--from", "start", type=click.Path(path_type=Path, file_okay=False, exists=True),
              help="A package or a Hugging Face LLaMA folder; else from nothing.")  # fmt: skip
@click.option("--tokens", type=click.IntRange(1), default=15_000_000, show_default=True, help="Of training.")
@click.option("--holdout", type=NumberRange(0, 1, max_open=True), default=0.15, show_default=True,
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

    Prompts hold what the events carry, and text queries are learned from posts' titles; or prompts hold texts alone. Of
    these and of the two member forms what is best on an inner split is taken, unless the settings name templates or a
    member_form, or training starts from a package.

    \b
    Example:
      nearline train --events events.jsonl.gz --out my-package
      nearline train --events events.jsonl.gz --out my-package --resume
    """
    from nearline.commands._recorded_events import read_feed
    from nearline.settings.data_folder import make_writable_folder
    from trainer.default_prompts import default_prompts_sentence, with_default_prompts
    from trainer.device_use import this_card
    from trainer.inner_split import TEXTS
    from trainer.plan import Plan
    from trainer.settings import read_settings
    from trainer.training import train

    settings = read_settings(config)
    make_writable_folder(out.absolute().parent, "out", "--out")  # before the events are read, which takes minutes
    if idle := this_card().idle:
        click.echo(f"trains on one GPU and leaves {idle} idle; accelerate launch -m nearline train uses all", err=True)
    feed = read_feed(events)
    asked = Plan(feed.cut(holdout), tokens, seed, settings, package_id or package_id_of(out), start)
    plan = with_default_prompts(feed, asked)
    if plan is not asked:
        click.echo(default_prompts_sentence(plan), err=True)
    package = train(feed, plan, out, resume=resume, progress=on_terminal())
    if package is None:  # another process writes it
        return
    if (inner := package.manifest.training.get("inner_split")) is not None:
        chosen = "texts alone" if inner["chosen"] == TEXTS else f"member form {inner['chosen']}"
        click.echo(f"chosen on an inner split: {chosen}, {package.manifest.training['tokens']} tokens", err=True)
    for result in package.manifest.training.get("figures", []):
        recalls = ", ".join(f"@{k} {value:.3f}" for k, value in result["groups"]["protocol"]["recall"].items())
        click.echo(f"recall, history {result['history']}: {recalls}", err=True)
    _print_rivals(package.manifest.training)
    click.echo(package.generation)


def _print_rivals(record: dict[str, Any]) -> None:
    for rival in record.get("rivals", []):
        better = f"better in {rival['share_better']:.0%} of the resamples"
        click.echo(f"{rival['system']}: recall @100 {rival['recall']:.3f}; {better}", err=True)
    if (why := record.get("untrained_not_measured")) is not None:
        click.echo(f"warning: the untrained start is not measured: {why}", err=True)
