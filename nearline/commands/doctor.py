"""`nearline doctor`: what is installed and what answers."""

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
    from nearline.ask import doctor as examine

    findings = examine.everything(instance_settings(config, data_dir))
    width = max(len(one.what) for one in findings)
    for one in findings:
        mend = f"; {one.mend}" if one.mend else ""
        click.echo(f"{one.verdict}  {one.what.ljust(width)}  {one.found}{mend}")
    if any(one.verdict == examine.MISSING for one in findings):
        raise click.exceptions.Exit(1)
