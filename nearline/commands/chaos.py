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
    from nearline.chaos.run import STAGES, chaos_on
    from nearline.chaos.table import report
    from nearline.up.runtime import BROKER
    from streams.kafka.crash_points import NAMES

    names = NAMES if crash_points else ()
    if not names and not faults:
        raise click.UsageError("nothing is left to do; leave out --no-crash-points, or ask for some --faults")
    # The more faults, the longer each part of them takes: 300 make outages of a minute.
    with chaos_on(seed, click.echo, outage_s=min(60.0, max(5.0, faults / 5)), keep=True) as adversary:
        kills = [stage for stage in (*STAGES, BROKER) for _ in range(min(4, faults // 75))]
        frozen = (*STAGES, BROKER)[: faults // 50]
        outages = adversary.outages if faults else []
        left = faults - len(kills) - len(frozen) - len(outages)
        share = max(_LEAST_SHARE, events // (faults + 3 * len(names)))
        for name in names:
            adversary.crash_point(name, 3 * share)
        for stage in kills:
            adversary.kill(stage, 3 * share)
        for stage in frozen:
            adversary.freeze_for_good(stage, 3 * share)
        for name in outages:
            adversary.outage(name, 3 * share)
        adversary.faults(max(0, left), left * share)
        report(adversary.rounds, click.echo, json_file)
