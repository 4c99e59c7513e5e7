"""`nearline run`: runs one stage of the pipeline on this machine, in the foreground."""

from pathlib import Path

import click

from nearline.commands._options import place_options

_STAGES = ("contexts", "trending", "encode", "index", "serve", "autopilot", "monitor")


@click.command()
@click.argument("stage", type=click.Choice(_STAGES))
@click.option("--place", type=click.Choice(["blue", "green", "both"]), help="Of encode and index; usually both.")
@click.option("--slot", type=click.IntRange(min=0), help="Tells contexts or encode workers of one data folder apart.")
@place_options
def run(*, stage: str, place: str | None, slot: int | None, config: Path | None, data_dir: Path | None) -> None:
    """Run one stage until SIGTERM or Ctrl-C, with a broker that is named in the configuration.

    Encode and index work for the generation at their place, and wait while it is empty. `package` in the configuration
    is the first generation; without it they wait until another process has founded one. Of autopilot and monitor one
    each is enough for a cluster. The autopilot works while it is switched on, and asks the retriever that serve.url
    names.

    \b
    Example:
      nearline run encode --place green --config cluster.toml
      nearline run contexts --slot 1 --config cluster.toml
    """
    from nearline import log
    from nearline.settings.loading import load_settings
    from nearline.up.run_stage import AT_PLACES, WITH_SLOTS, names_of, run_stage
    from streams.generations.state import PLACES

    if place is not None and stage not in AT_PLACES:
        raise click.UsageError(f"--place is of {' and '.join(AT_PLACES)}; {stage} works for all generations")
    if slot is not None and stage not in WITH_SLOTS:
        raise click.UsageError(f"--slot is of {' and '.join(WITH_SLOTS)}; one {stage} is enough for a data folder")
    places = [known for known in PLACES if place in (known, "both", None)]
    settings = load_settings(config, data_dir)
    log.configure("run", settings.log_level)
    run_stage(settings, names_of(settings, stage, places, slot or 0))
