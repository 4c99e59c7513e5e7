"""`nearline autopilot`: switches the autopilot on and off, and shows what it does."""

import click

from nearline.commands._generation_acts import act_options, kafka_of, operator
from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import print_json
from nearline.settings.settings import Settings


@click.group()
def autopilot() -> None:
    """Let published models replace the serving one by themselves: built, gated, tried on some members, promoted.

    It is off at first. It never takes a generation from an operator, and never retires what serves.

    \b
    Example:
      nearline autopilot on --reason "nightly models"
      nearline autopilot status
    """


@autopilot.command()
@act_options
@instance_options
def on(*, reason: str | None, by: str | None, settings: Settings, instance: InstanceReader) -> None:
    """Switch it on. It goes on with what it was working on, unless an operator has changed that meanwhile.

    \b
    Example:
      nearline autopilot on --reason "nightly models"
    """
    _switch(settings, instance, reason, by, on=True)


@autopilot.command()
@act_options
@instance_options
def off(*, reason: str | None, by: str | None, settings: Settings, instance: InstanceReader) -> None:
    """Switch it off. Nothing is undone: a canary goes on, and what is being built too.

    \b
    Example:
      nearline autopilot off --reason "a freeze"
    """
    _switch(settings, instance, reason, by, on=False)


@autopilot.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@instance_options
def status(*, as_json: bool, settings: Settings, instance: InstanceReader) -> None:
    """Print whether it is on, which model it works on, what comes next and why, and its last acts.

    \b
    Example:
      nearline autopilot status --json
    """
    from nearline.autopilot.pilot import now, plan_of
    from nearline.commands._autopilot_views import View, print_status, status_json
    from streams.generations.log import read_generations
    from streams.generations.models import read_models

    kafka = kafka_of(settings, instance)
    view = View(read_generations(kafka), read_models(kafka), plan_of(settings), now())
    if as_json:
        print_json(status_json(view))
    else:
        print_status(view)


def _switch(settings: Settings, instance: InstanceReader, reason: str | None, by: str | None, *, on: bool) -> None:
    from nearline.autopilot import acts
    from streams.generations.log import change_generations

    who = operator(by, reason)
    change_generations(kafka_of(settings, instance), lambda state: acts.switch(state, who, on=on))
    click.echo(f"the autopilot is {'on' if on else 'off'}")
