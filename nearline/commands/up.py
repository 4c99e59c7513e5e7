"""`nearline up`: everything, in the foreground."""

from pathlib import Path

import click

from nearline.commands._options import place_options


@click.command()
@place_options
@click.option("--package", type=click.Path(path_type=Path, file_okay=False), help="A model package; else the demo's.")
@click.option("--port", type=click.IntRange(0, 65535), help="Of the retriever; 0: a free one. Usually 8080.")
@click.option(
    "--api-key",
    help="Guards the retriever. For a moment a process list shows it: better set NEARLINE_SERVE__API_KEY, or "
    "NEARLINE_SERVE__API_KEY_FILE to a file that holds it.",
)
def up(
    *,
    config: Path | None,
    data_dir: Path | None,
    package: Path | None,
    port: int | None,
    api_key: str | None,
) -> None:
    """Run broker, stages, tiers and retriever until SIGTERM or Ctrl-C.

    Prints `ready` when it serves. What dies is started again.

    \b
    Example:
      nearline up --data-dir /tmp/try --port 0
    """
    from nearline import log
    from nearline.settings.settings import load_settings
    from nearline.up.runtime import run_up

    settings = load_settings(config, data_dir, package=package, serve__port=port, serve__api_key=api_key)
    log.configure("up", settings.log_level)
    run_up(settings)
