"""`nearline models`: the registry of model packages."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearline.commands._terminal import print_json, print_table

if TYPE_CHECKING:
    from encoders.packages import ModelPackage
    from trainer.registry import Registry

_registry = click.option(
    "--registry",
    required=True,
    envvar="NEARLINE_REGISTRY",
    help="A folder, or a URL: s3://, gs://, az://. Environment: NEARLINE_REGISTRY.",
)


@click.group()
def models() -> None:
    """Publish model packages, and see what is published.

    \b
    Example:
      nearline models publish my-package --registry models --events events.jsonl.gz
      nearline models list --registry models
    """


@models.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@_registry
@click.option("--events", multiple=True, help="JSON lines, or .gz, newer than the packages' training.")
@click.option("--force", metavar="REASON", help="Publish without a comparison; the reason is kept.")
def publish(*, folder: Path, registry: str, events: tuple[str, ...], force: str | None) -> None:
    """Publish the package in FOLDER, if it finds more than the one published last.

    It must have the higher Recall@100 in 95 % of a paired bootstrap, over actions that are newer than what both
    packages were trained on. The first package is compared with popularity.

    \b
    Example:
      nearline models publish my-package --registry s3://bucket/models --events newest.jsonl.gz
    """
    from encoders.packages import ModelPackage
    from trainer.registry import Registry

    if bool(events) == bool(force and force.strip()):
        raise click.UsageError("give --events to compare with, or --force with a reason")
    package = ModelPackage.load(folder)
    found = Registry(registry)
    gate = {"forced": force} if force else _gate(package, found, events)
    print_json(found.publish(package, gate))


def _gate(package: "ModelPackage", registry: "Registry", events: tuple[str, ...]) -> dict[str, Any]:
    from nearline.recorded import read_feed
    from trainer.gate import compare

    feed = read_feed(events)
    published = registry.publications()
    if not published:
        return compare(package, None, feed)
    with tempfile.TemporaryDirectory(prefix="nearline-models-") as folder:
        return compare(package, registry.fetch(published[-1].generation, Path(folder)), feed)


@models.command("list")
@_registry
def list_(*, registry: str) -> None:
    """List what is published, oldest first.

    \b
    Example:
      nearline models list --registry models
    """
    from trainer.registry import Registry

    rows = [
        (one.generation, one.published_at, one.gate.get("recall"), one.gate.get("forced"))
        for one in Registry(registry).publications()
    ]
    print_table(("generation", "published", "R@100", "forced because"), rows)


@models.command()
@click.argument("generation")
@_registry
def show(*, generation: str, registry: str) -> None:
    """Show what is known of a published package, its training included, as JSON.

    \b
    Example:
      nearline models show my-package-1a2b3c4d --registry models
    """
    from trainer.registry import Registry

    print_json(Registry(registry).show(generation))


@models.command()
@click.argument("generation", required=False)
@_registry
def verify(*, generation: str | None, registry: str) -> None:
    """Read every file of a published package, or of all, and check its digest.

    \b
    Example:
      nearline models verify --registry models
    """
    from trainer.registry import Registry

    found = Registry(registry)
    for name in [generation] if generation else [one.generation for one in found.publications()]:
        found.verify(name)
        click.echo(f"{name} is whole")
