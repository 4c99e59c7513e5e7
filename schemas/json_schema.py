"""Writes the JSON Schema of the input events for producers: `python -m schemas.json_schema`.

The file `schemas/events.schema.json` is committed; a test checks that it still fits the code.
"""

from pathlib import Path
from typing import Any

import msgspec

from schemas.events import Event

EVENTS_SCHEMA = Path(__file__).with_name("events.schema.json")


def events_schema() -> dict[str, Any]:
    (root,), components = msgspec.json.schema_components([Event], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nearline input event",
        **root,
        "$defs": components,
    }


def render() -> bytes:
    return msgspec.json.format(msgspec.json.encode(events_schema(), order="deterministic"), indent=2) + b"\n"


if __name__ == "__main__":
    EVENTS_SCHEMA.write_bytes(render())
