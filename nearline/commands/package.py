"""`nearline package`: makes and checks model packages."""

from pathlib import Path
from typing import Any

import click

from nearline.commands._options import checked_device, package_id_of


@click.group()
def package() -> None:
    """Make and check model packages.

    \b
    Example:
      nearline package create Llama-3.2-1B --out my-package
      nearline package check my-package
    """


@package.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new package; must not be there yet.")
@click.option("--id", "package_id", help="Begins the generation's name; else made of the folder's name.")
@click.option("--pooling", type=click.Choice(["mean", "last"]), default="last", show_default=True)
@click.option("--dimension", type=click.IntRange(1), help="What vectors are cut to; else the model's size.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Else as the weights are.")
@click.option("--member-form", type=click.Choice(["prompt", "mean"]), default="prompt", show_default=True)
@click.option("--post-tokens", type=click.IntRange(1), default=512, show_default=True)
@click.option("--member-tokens", type=click.IntRange(1), default=2048, show_default=True)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False),
              help="Settings of a training, in TOML, for their [templates] and [member_vectors]; else prompts hold "
              "texts alone, and members have one vector.")  # fmt: skip
@click.option("--events", multiple=True, help="JSON lines, or .gz: the quantile tables of the templates' numbers are "
              "fitted on them.")  # fmt: skip
def create(
    *,
    folder: Path,
    out: Path,
    package_id: str | None,
    member_form: str,
    post_tokens: int,
    member_tokens: int,
    config: Path | None,
    events: tuple[str, ...],
    **recipe_fields: Any,
) -> None:
    """Make a model package from a Hugging Face LLaMA-3 FOLDER: safetensors, one file or several.

    It is not trained, and `nearline train --from` trains it, with any of these options.

    \b
    Example:
      nearline package create Llama-3.2-1B --out my-package --dimension 512
      nearline package create Llama-3.2-1B --out my-package --config train.toml --events events.jsonl.gz
    """
    from nearline.settings.data_folder import make_writable_folder

    make_writable_folder(out.absolute().parent, "out", "--out")  # before the weights are read
    from encoders.from_hugging_face import Recipe, create_package
    from encoders.package.manifest import MeanForm, PromptForm, TokenLimits

    if config is not None:
        recipe_fields |= _of_config(config, events)
    elif events:
        raise click.UsageError("--events is for the numbers that the templates of --config name; give --config too")
    recipe = Recipe(
        id=package_id or package_id_of(folder),
        member_form=MeanForm() if member_form == "mean" else PromptForm(),
        token_limits=TokenLimits(post_tokens, member_tokens),
        **recipe_fields,
    )
    click.echo(create_package(folder, out, recipe).generation)


@package.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--device", default="auto", show_default=True, callback=checked_device, help="auto, cpu, cuda or cuda:N.")
def check(*, folder: Path, device: str) -> None:
    """Check the digests and the golden vectors of a package; prints its generation.

    \b
    Example:
      nearline package check my-package
    """
    from encoders.encoder import Encoder

    click.echo(Encoder.load(folder, device=device).package.generation)


def _of_config(config: Path, events: tuple[str, ...]) -> dict[str, Any]:
    """The templates, the quantile tables of the numbers that they name, and whether members have several vectors."""
    from encoders.package.manifest import Templates, number_fields
    from trainer.errors import BadStart
    from trainer.settings import read_settings

    settings = read_settings(config)
    templates = Templates() if settings.templates is None else settings.templates.templates()
    fields: dict[str, Any] = {"templates": templates}
    if settings.member_vectors is not None:
        fields["member_vectors"] = settings.member_vectors.form()
    numbers = number_fields(templates)
    if not numbers:
        return fields
    if not events:
        raise BadStart(
            f"templates in {config} names numbers ({', '.join(numbers)}), whose quantile tables are fitted on events; "
            "give --events"
        )
    from nearline.commands._recorded_events import read_feed
    from trainer.data.named_fields import refuse_missing_fields
    from trainer.data.quantile_tables import tables_before

    feed = read_feed(events)
    cut_us = feed.cut(0.0)
    if settings.templates is not None:
        refuse_missing_fields(feed, cut_us, settings.templates)
    return fields | {"quantiles": tables_before(feed, cut_us)}
