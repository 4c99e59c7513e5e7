"""`nearline models`: the registry of model packages, and the topic on which they are announced."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import print_json, print_table
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from encoders.package.model_package import ModelPackage
    from streams.settings import KafkaSettings
    from trainer.publishing.registry import Publication, Registry

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
@click.option("--baseline", "baselines", multiple=True, type=click.Path(path_type=Path, file_okay=False, exists=True),
              help="A folder of sentence-transformers that it must beat too; may be given several times.")  # fmt: skip
@click.option("--force", metavar="REASON", help="Publish without a comparison; the reason is kept.")
@_as_json
@instance_options
def publish(
    *,
    folder: Path,
    registry: str,
    events: tuple[str, ...],
    baselines: tuple[Path, ...],
    force: str | None,
    as_json: bool,
    settings: Settings,
    instance: InstanceReader,
) -> None:
    """Publish the package in FOLDER, if it finds more than the one published last, and announce it.

    It must have the higher Recall@100 in 95 % of a paired bootstrap, over actions that are newer than what both
    packages were trained on. The first package is compared with popularity. The same is asked against what one could
    have for nothing: TF-IDF, BM25, the untrained start, and each --baseline. It is announced on the topic models, from
    which the autopilot takes it, if a broker is configured; a package that is published already is announced again.

    \b
    Example:
      nearline models publish my-package --registry s3://bucket/models --events newest.jsonl.gz
    """
    from encoders.package.model_package import ModelPackage
    from trainer.publishing.registry import Registry

    if bool(events) == bool(force and force.strip()):
        raise click.UsageError("give --events to compare with, or --force with a reason")
    if baselines and not events:
        raise click.UsageError("--baseline is compared on --events; give them, or take --baseline out")
    package = ModelPackage.load(folder)
    target, kafka = Registry(registry), _broker(settings, instance)
    # Looked at first: the comparison takes minutes, and would only find that the package is no better than itself.
    already = target.is_published(str(package.generation))
    if already:
        publication = target.show(str(package.generation))
    else:
        publication = target.publish(package, {"forced": force} if force else _gate(package, target, events, baselines))
    if kafka is not None:
        _announce(kafka, publication, registry)
    if as_json:
        print_json({**msgspec.to_builtins(publication), "already": already, "announced": kafka is not None})
    else:
        click.echo(_published(publication, registry, already=already))
    if kafka is None:
        click.echo(
            "note: it is not announced, because no broker is configured and no instance runs here; to announce it, "
            "run the command again with --config or --data-dir",
            err=True,
        )
    elif not as_json:
        click.echo("it is announced on the topic models")


def _broker(settings: Settings, instance: InstanceReader) -> "KafkaSettings | None":
    """None if the settings name no broker, and no instance runs here."""
    from nearline.ask.connections import Connections
    from nearline.errors import NotRunning

    try:
        return Connections(settings, instance).kafka
    except NotRunning:
        return None


def _announce(kafka: "KafkaSettings", publication: "Publication", registry: str) -> None:
    """Raises NotAnnounced."""
    from datetime import datetime

    from nearline.errors import NotAnnounced
    from nearline.generations.packages import in_registry
    from schemas.ids import Generation
    from schemas.models import ModelRecord
    from streams.errors import StreamsError
    from streams.generations.models import announce

    generation, published_at = Generation(publication.generation), datetime.fromisoformat(publication.published_at)
    try:
        announce(kafka, ModelRecord(generation, publication.digest, in_registry(registry), published_at))
    except StreamsError as error:
        raise NotAnnounced(generation, str(error)) from error


def _published(publication: "Publication", registry: str, *, already: bool) -> str:
    when = f"is published in {registry}"
    if already:
        when = f"was published in {registry} already, at {publication.published_at}, and nothing was compared now"
    return f"{publication.generation} {when}: {_why(publication.gate)}"


def _gate(
    package: "ModelPackage", registry: "Registry", events: tuple[str, ...], baselines: tuple[Path, ...]
) -> dict[str, Any]:
    from nearline.commands._recorded_events import read_feed
    from trainer.evaluation.sentence_model import refuse_folders
    from trainer.publishing.quality_gate import compare

    refuse_folders(baselines)  # before the events are read, which takes minutes
    feed = read_feed(events)
    published = registry.publications() if registry.exists() else []
    if not published:
        return compare(package, None, feed, baselines)
    with tempfile.TemporaryDirectory(prefix="nearline-models-") as folder:
        return compare(package, registry.fetch(published[-1].generation, Path(folder)), feed, baselines)


def _why(gate: dict[str, Any]) -> str:
    """Why the package was published, in one line."""
    if "forced" in gate:
        return f"without a comparison, because: {gate['forced']}"
    more = "".join(f"; {rival['system']} has {rival['recall']:.3f}" for rival in gate.get("rivals", []))
    missing = gate.get("untrained_not_measured")
    return (
        f"Recall@{gate['recall_at']} {gate['recall']:.3f}, {gate['against']} has {gate['recall_before']:.3f}; "
        f"better in {gate['share_better']:.0%} of the resamples; {gate['members']} members, from {gate['from']} on"
        + more
        + (f"; the untrained start is not measured: {missing}" if missing else "")
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
