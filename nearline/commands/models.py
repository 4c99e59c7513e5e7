"""`nearline models`: the registry of model packages."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from nearline.commands._terminal import print_json, print_table

if TYPE_CHECKING:
    from encoders.package.model_package import ModelPackage
    from trainer.publishing.registry import Registry

_registry = click.option(
    "--registry",
    required=True,
    envvar="NEARLINE_REGISTRY",
    help="A folder, or a URL: s3://, gs://, az://. Environment: NEARLINE_REGISTRY.",
)


_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


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
@_as_json
def publish(*, folder: Path, registry: str, events: tuple[str, ...], force: str | None, as_json: bool) -> None:
    """Publish the package in FOLDER, if it finds more than the one published last.

    It must have the higher Recall@100 in 95 % of a paired bootstrap, over actions that are newer than what both
    packages were trained on. The first package is compared with popularity.

    \b
    Example:
      nearline models publish my-package --registry s3://bucket/models --events newest.jsonl.gz
    """
    from encoders.package.model_package import ModelPackage
    from trainer.publishing.registry import Registry

    if bool(events) == bool(force and force.strip()):
        raise click.UsageError("give --events to compare with, or --force with a reason")
    package = ModelPackage.load(folder)
    target = Registry(registry)
    # Checked first: the comparison takes minutes, and would only find that the package is no better than itself.
    target.refuse_published(str(package.generation))
    gate = {"forced": force} if force else _gate(package, target, events)
    publication = target.publish(package, gate)
    if as_json:
        print_json(publication)
    else:
        click.echo(f"{publication.generation} is published in {registry}: {_why(publication.gate)}")


def _gate(package: "ModelPackage", registry: "Registry", events: tuple[str, ...]) -> dict[str, Any]:
    from nearline.commands._recorded_events import read_feed
    from trainer.publishing.quality_gate import compare

    feed = read_feed(events)
    published = registry.publications() if registry.exists() else []
    if not published:
        return compare(package, None, feed)
    with tempfile.TemporaryDirectory(prefix="nearline-models-") as folder:
        return compare(package, registry.fetch(published[-1].generation, Path(folder)), feed)


def _why(gate: dict[str, Any]) -> str:
    """Why the package was published, in one line."""
    if "forced" in gate:
        return f"without a comparison, because: {gate['forced']}"
    return (
        f"Recall@{gate['recall_at']} {gate['recall']:.3f}, {gate['against']} has {gate['recall_before']:.3f}; "
        f"better in {gate['share_better']:.0%} of the resamples; {gate['members']} members, from {gate['from']} on"
    )


@models.command("list")
@_registry
def list_(*, registry: str) -> None:
    """List what is published, oldest first.

    \b
    Example:
      nearline models list --registry models
    """
    from trainer.publishing.registry import Registry

    rows = [
        (
            publication.generation,
            publication.published_at,
            publication.gate.get("recall"),
            publication.gate.get("forced"),
        )
        for publication in Registry(registry).publications()
    ]
    if not rows:
        click.echo(f"nothing is published in {registry}")
        return
    print_table(("generation", "published", "R@100", "forced because"), rows)


@models.command()
@click.argument("generation")
@_registry
@_as_json
def show(*, generation: str, registry: str, as_json: bool) -> None:
    """Show what is known of a published package, its training included.

    \b
    Example:
      nearline models show my-package-1a2b3c4d --registry models
    """
    from trainer.publishing.registry import Registry

    publication = Registry(registry).show(generation)
    if as_json:
        print_json(publication)
        return
    facts = {
        "generation": publication.generation,
        "published": publication.published_at,
        "why": _why(publication.gate),
        "digest": publication.digest,
        **{f"training {name}": value for name, value in publication.training.items()},
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name.ljust(width)}  {value if isinstance(value, str) else msgspec.json.encode(value).decode()}")


@models.command()
@click.argument("generation", required=False)
@_registry
def verify(*, generation: str | None, registry: str) -> None:
    """Read every file of a published package, or of all, and check its digest.

    \b
    Example:
      nearline models verify --registry models
    """
    from trainer.publishing.registry import Registry

    source = Registry(registry)
    for name in [generation] if generation else [publication.generation for publication in source.publications()]:
        source.verify(name)
        click.echo(f"{name} is whole")
