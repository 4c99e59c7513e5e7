"""`nearline doctor`: checks what is installed and what answers."""

from pathlib import Path

import click

from nearline.commands._options import place_options
from nearline.settings.loading import instance_settings


@click.command()
@place_options
def doctor(*, data_dir: Path | None, config: Path | None) -> None:
    """Print one line for each thing that nearline needs or talks to, with the mend where something is missing.

    `ok` is fine, `--` is not there and not needed now, `no` is missing; the exit status is 1 when there is a `no`.

    \b
    Example:
      nearline doctor
    """
    from nearline.ask.doctor import MISSING, run_checks

    checks = run_checks(instance_settings(config, data_dir))
    width = max(len(check.subject) for check in checks)
    for check in checks:
        mend = f"; {check.mend}" if check.mend else ""
        click.echo(f"{check.state}  {check.subject.ljust(width)}  {check.detail}{mend}")
    if any(check.state == MISSING for check in checks):
        raise click.exceptions.Exit(1)
