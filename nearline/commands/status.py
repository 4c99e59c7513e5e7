"""`nearline status`: what stands still in the instance; its processes, lags, tiers, dead letters and freshness."""

from typing import TYPE_CHECKING

import click

from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import print_table
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from schemas.api import StageStatus, StatusResponse


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@instance_options
def status(*, as_json: bool, settings: Settings, instance: InstanceReader) -> None:
    """Print what stands still: since when, why, what it holds up, and what happens next. Then processes, the lag of
    every stage, the tiers, dead letters and freshness.

    Answers within 5 s; what does not answer in time is unknown and named.

    \b
    Example:
      nearline status
      nearline status --json
    """
    from nearline.ask.connections import Connections
    from nearline.ask.status import read_status
    from nearline.ask.status_sources import sources_of_command

    answer = read_status(sources_of_command(Connections(settings, instance)))
    if as_json:
        click.echo(answer.model_dump_json())
    else:
        _print(answer)


def _print(answer: "StatusResponse") -> None:
    state = "standing still" if answer.standing_still else "ready" if answer.ready else "not ready"
    click.echo(f"{state}, generation {answer.generation or 'unknown'}")
    for sentence in answer.standing_still:
        click.echo(f"standing still: {sentence}")
    for problem in answer.problems:
        click.echo(f"problem: {problem}")
    click.echo()
    print_table(
        ("process", "pid", "restarts"), ((process.name, process.pid, process.restarts) for process in answer.processes)
    )
    click.echo()
    print_table(
        ("stage", "group", "topic", "lag", "oldest_s", "deleted_unread"),
        map(_stage_row, answer.stages),
    )
    click.echo()
    cold, hot, fresh = answer.tiers.cold, answer.tiers.hot, answer.freshness_s
    rows = [
        ("cold posts", cold.posts),
        ("cold members", cold.members),
        ("hot posts", hot.posts),
        ("dead letters", answer.dead_letters),
        ("freshness p50, s", fresh.p50),
        ("freshness p99, s", fresh.p99),
        ("newest change, s ago", fresh.newest_age_s),
    ]
    print_table(("what", "number"), rows)


def _stage_row(stage: "StageStatus") -> tuple[object, ...]:
    deleted_unread = sum(stage.deleted_unread.values())
    return stage.stage, stage.group or None, stage.topic, stage.lag, stage.oldest_age_s, deleted_unread
