"""Where the rows of a worker of the context stage lie on its machine. Imports no database."""

from pathlib import Path
from typing import Final

from schemas.ids import ContextVersion
from schemas.topics import FIRST_CONTEXTS

ROWS_FOLDER: Final = "rows"


def rows_folder(data_dir: Path, slot: str, version: ContextVersion = FIRST_CONTEXTS) -> Path:
    """`slot` tells the workers of a version apart."""
    return data_dir / ROWS_FOLDER / (slot if version == FIRST_CONTEXTS else f"v{version}-{slot}")
