"""`nearline up`: runs all processes of an instance, in the foreground."""

from pathlib import Path

import click

from nearline.commands._options import place_options


@click.command()
@place_options
@click.option("--package", type=click.Path(path_type=Path, file_okay=False), help="The first package; else the demo's.")
@click.option("--port", type=click.IntRange(0, 65535), help="Of the retriever; 0: a free one. Usually 8080.")
def up(
    *,
    config: Path | None,
    data_dir: Path | None,
    package: Path | None,
    port: int | None,
) -> None:
    """Run broker, stages, tiers and retriever until SIGTERM or Ctrl-C.

    Prints `ready` when it serves, and the address of the operators' page. What dies is started again. The retriever
    asks for a key where NEARLINE_SERVE__API_KEY_FILE names a file that holds one.

    On a fresh data folder or broker the package becomes the first generation. After that the log of the generations
    says which one serves, and another package is refused.

    \b
    Example:
      nearline up --data-dir /tmp/try --port 0
    """
    from nearline import log
    from nearline.settings.loading import load_settings
    from nearline.up.runtime import run_up

    settings = load_settings(config, data_dir, package=package, serve__port=port)
    log.configure("up", settings.log_level)
    run_up(settings)
