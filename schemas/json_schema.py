"""Writes the JSON Schemas of what others write and read: `python -m schemas.json_schema`.

The files `schemas/*.schema.json` are committed; a test checks that they still fit the code.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from schemas.events import Event
from schemas.models import ModelRecord
from schemas.post_vectors import PostVector, PostVectorsSwitch


class Described(NamedTuple):
    """What a schema describes."""

    title: str
    type: Any


SCHEMAS: Final = {
    Path(__file__).with_name("events.schema.json"): Described("nearline input event", Event),
    Path(__file__).with_name("models.schema.json"): Described("nearline published model", ModelRecord),
    Path(__file__).with_name("post_vector.schema.json"): Described("nearline post vector", PostVector),
    Path(__file__).with_name("post_vectors_switch.schema.json"): Described(
        "nearline switch of the post vectors", PostVectorsSwitch
    ),
}
"""By the file that holds it."""


def render(described: Described) -> bytes:
    (root,), components = msgspec.json.schema_components([described.type], ref_template="#/$defs/{name}")
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": described.title,
        **root,
        "$defs": components,
    }
    return msgspec.json.format(msgspec.json.encode(schema, order="deterministic"), indent=2) + b"\n"


if __name__ == "__main__":
    for file, described in SCHEMAS.items():
        file.write_bytes(render(described))
