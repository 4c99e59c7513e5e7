"""Which form the serving package's member vectors have, and why: as its training has recorded."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from encoders.errors import BadPackage
from encoders.package.manifest import FormName, Manifest, form_name
from encoders.package.model_package import ModelPackage
from nearline.ask.connections import Connections
from nearline.generations.packages import package_folder

_WORDS = {"prompt": "profile and history as one prompt", "mean": "the mean of the vectors of profile and history"}


class ServedForm(NamedTuple):
    form: FormName | None
    """None where this machine does not have the package."""
    why: str

    def __str__(self) -> str:
        return self.why if self.form is None else f"{self.form}, {_WORDS[self.form]}: {self.why}"


def served_form(connections: Connections) -> ServedForm:
    """Reads nearline.json alone. Raises NotRunning, RetrieverError, StreamsError."""
    generation = connections.generation
    record = connections.generations.records.get(generation)
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
    form = form_name(manifest.member_form)
    inner = manifest.training.get("inner_split")
    measured: Mapping[str, Any] = inner["measured"] if isinstance(inner, dict) else {}
    if len(measured) > 1:
        best = {name: max(entry["recall"] for entry in entries) for name, entries in measured.items()}
        recalls = ", ".join(f"{name} {recall:.3f}" for name, recall in best.items())
        return ServedForm(form, f"the better one on an inner split of its training's events (Recall@100: {recalls})")
    if manifest.training:
        return ServedForm(form, "as the settings of its training, or the package that it began with, say")
    return ServedForm(form, "as the package was made; it was not trained here")
