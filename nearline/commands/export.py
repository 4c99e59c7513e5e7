"""`nearline export`: writes the events of the input topics into files for the trainer."""

from pathlib import Path

import click

from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import on_terminal
from nearline.settings.settings import Settings


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The folder of the files.")
@click.option("--since", metavar="TIME", help="Leave out what was sent before, such as 2026-01-05T00:00:00Z.")
@instance_options
def export(*, out: Path, since: str | None, settings: Settings, instance: InstanceReader) -> None:
    """Write posts, members and activity into Parquet files, and print how many events there were.

    Called again, it adds what has come since; file names say the offsets that each covers. `nearline train` and
    `nearline evaluate` take the folder as --events.

    \b
    Example:
      nearline export --out recorded && nearline train --events recorded --out my-package
    """
    from tqdm import tqdm

    from nearline.ask.connections import Connections
    from nearline.settings.data_folder import make_writable_folder
    from schemas.ids import Millis
    from schemas.times import from_rfc3339
    from streams.operate.export import export

    try:
        since_ms = Millis(from_rfc3339(since) // 1000 if since else 0)
    except ValueError as error:
        raise click.UsageError(f"--since: {error}") from error
    kafka = Connections(settings, instance).kafka
    make_writable_folder(out, "out", "--out")
    num = 0
    with tqdm(desc="events", disable=not on_terminal(), unit="") as bar:
        for num_written in export(kafka, out, since_ms):
            num += num_written
            bar.update(num_written)
    click.echo(f"{num} events")
