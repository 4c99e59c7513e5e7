"""The names of a generation's collections on a Qdrant server."""

from schemas.ids import Generation, Kind


def collection_name(kind: Kind, generation: Generation) -> str:
    return f"nearline-{kind}s-{generation}"
