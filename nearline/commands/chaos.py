"""`nearline chaos`: breaks a pipeline again and again, and checks that nothing is lost."""

from pathlib import Path
from typing import Final

import click

from nearline.commands._options import OutputFile

_MIN_EVENTS_PER_FAULT: Final = 20
"""Enough that some pass through every part of the pipeline."""


@click.command()
@click.option("--faults", type=click.IntRange(min=0), default=300, show_default=True, help="Random faults.")
@click.option("--events", type=click.IntRange(min=100), default=20_000, show_default=True, help="In all.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--crash-points/--no-crash-points", default=True, help="Every place between two effects, twice, operators' too."
)
@click.option("--json", "json_file", type=OutputFile(), help="Write the table here too.")
def chaos(*, faults: int, events: int, seed: int, crash_points: bool, json_file: Path | None) -> None:
    """Start a pipeline of its own, kill and freeze its processes, and check that nothing is lost.

    \b
    Example:
      nearline chaos --faults 30 --events 3000
    """
    from nearline.chaos.operator_acts import ACTS
    from nearline.chaos.run import STAGES, chaos_on
    from nearline.chaos.table import report
    from nearline.up.runtime import BROKER
    from streams.kafka.crash_points import OF_STAGES

    names, acts = (OF_STAGES, ACTS) if crash_points else ((), ())
    if not names and not faults:
        raise click.UsageError("nothing is left to do; leave out --no-crash-points, or ask for some --faults")
    # Outages last longer when more faults are asked for: a minute for 300.
    with chaos_on(seed, click.echo, outage_s=min(60.0, max(5.0, faults / 5)), keep=True) as adversary:
        kills = [stage for stage in (*STAGES, BROKER) for _ in range(min(4, faults // 75))]
        frozen = (*STAGES, BROKER)[: faults // 50]
        outages = adversary.outages if faults else []
        num_random = max(0, faults - len(kills) - len(frozen) - len(outages))
        events_per_fault = max(_MIN_EVENTS_PER_FAULT, events // (faults + 3 * (len(names) + len(acts))))
        for name in names:
            adversary.crash_point(name, 3 * events_per_fault)
        for act in acts:
            adversary.act(act, 3 * events_per_fault)
        for stage in kills:
            adversary.kill(stage, 3 * events_per_fault)
        for stage in frozen:
            adversary.freeze_for_good(stage, 3 * events_per_fault)
        for name in outages:
            adversary.outage(name, 3 * events_per_fault)
        adversary.faults(num_random, num_random * events_per_fault)
        report(adversary.rounds, click.echo, json_file)
