"""Which form the serving package's member vectors have, how many of them a member has, and why: as the package and its
training have recorded, and as the cold tier holds the member."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from encoders.errors import BadPackage
from encoders.interests import asked_vectors
from encoders.package.manifest import FormName, Manifest, MemberVectorsForm, form_name
from encoders.package.model_package import ModelPackage
from indexer.tiers import StoredMember
from nearline.ask.connections import Connections
from nearline.generations.packages import package_folder
from schemas.embeddings import unpack_interests
from streams.generations.log import read_generations

_WORDS = {"prompt": "profile and history as one prompt", "mean": "the mean of the vectors of profile and history"}


class ServedForm(NamedTuple):
    form: FormName | None
    """None where this machine does not have the package."""
    why: str
    most_interests: int | None = None
    """How many interests a member may have, each with a vector of its own; None where members have one vector, or
    where that is not known."""

    def __str__(self) -> str:
        return self.why if self.form is None else f"{self.form}, {_WORDS[self.form]}: {self.why}"


class MemberVectors(NamedTuple):
    """The vectors that a member is asked with. `weights`: the share of each, its one vector's first; empty where it has
    one vector or none."""

    number: int
    weights: list[float]
    why: str

    def __str__(self) -> str:
        weights = f" (weights {', '.join(f'{weight:.2f}' for weight in self.weights)})" if self.weights else ""
        return f"{self.number}{weights}: {self.why}"


def served_form(connections: Connections) -> ServedForm:
    """Reads nearline.json alone. Raises NotRunning, RetrieverError, StreamsError."""
    generation = connections.generation
    record = read_generations(connections.kafka).records.get(generation)
    if record is None:
        return ServedForm(None, f"the log of the generations does not name the package of {generation}")
    try:
        package = ModelPackage.read(package_folder(record, connections.settings))
    except BadPackage:
        return ServedForm(None, f"the package of {generation} is not on this machine")
    if package.digest != record.digest:
        return ServedForm(None, f"{package.folder} holds {package.generation} now, and not {generation}")
    return form_of(package.manifest)


def form_of(manifest: Manifest) -> ServedForm:
    several = manifest.member_vectors
    most_interests = several.most if isinstance(several, MemberVectorsForm) else None
    return ServedForm(form_name(manifest.member_form), _why(manifest), most_interests)


def _why(manifest: Manifest) -> str:
    inner = manifest.training.get("inner_split")
    measured: Mapping[str, Any] = inner["measured"] if isinstance(inner, dict) else {}
    if len(measured) > 1:
        best = {name: max(entry["recall"] for entry in entries) for name, entries in measured.items()}
        recalls = ", ".join(f"{name} {recall:.3f}" for name, recall in best.items())
        return f"the best one on an inner split of its training's events (Recall@100: {recalls})"
    if manifest.training:
        return "as the settings of its training, or the package that it began with, say"
    return "as the package was made; it was not trained here"


def vectors_of(member: StoredMember | None, served: ServedForm) -> MemberVectors:
    """`member`: as the cold tier holds it; None if it does not."""
    if member is None:
        return MemberVectors(0, [], "the cold tier does not hold the member")
    if member.vector is None:
        empty = "the member has neither profile nor history, or they could not be encoded"
        return MemberVectors(0, [], "the member is deleted" if member.deleted else empty)
    weights = [each.weight for each in asked_vectors(member.vector, unpack_interests(member.interests))]
    if len(weights) == 1:
        return MemberVectors(1, [], _why_one(served))
    return MemberVectors(len(weights), weights, "its one vector, and one for each cluster of what it acted on")


def _why_one(served: ServedForm) -> str:
    if served.form is None:
        return "whether the package would give it more is not known here"
    if served.most_interests is None:
        return "the package gives each member one"
    return f"what it acted on is not several clusters; the package gives at most {served.most_interests} beside it"
