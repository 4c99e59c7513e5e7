"""`nearline chaos`: see it survive."""

from pathlib import Path
from typing import Final

import click

_LEAST_SHARE: Final = 20
"""Events for each fault: some must pass every place."""


@click.command()
@click.option("--faults", type=click.IntRange(min=0), default=300, show_default=True, help="Random faults.")
@click.option("--events", type=click.IntRange(min=100), default=20_000, show_default=True, help="In all.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--crash-points/--no-crash-points", default=True, help="Every named place between two effects, twice.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the table here too.")
def chaos(*, faults: int, events: int, seed: int, crash_points: bool, json_file: Path | None) -> None:
    """Start a pipeline of its own, kill and freeze its processes, and check that nothing is lost.

    \b
    Example:
      nearline chaos --faults 30 --events 3000
    """
    from nearline.chaos.run import chaos_on, report
    from streams.crash_points import NAMES

    names = NAMES if crash_points else ()
    if not names and not faults:
        raise click.UsageError("nothing is left to do; leave out --no-crash-points, or ask for some --faults")
    with chaos_on(seed, click.echo) as adversary:
        share = max(_LEAST_SHARE, events // (faults + 3 * len(names)))
        for name in names:
            adversary.crash_point(name, 3 * share)
        adversary.faults(faults, faults * share)
        report(adversary.rounds, click.echo, json_file)
