"""The name of this machine's data folder, of which transactional ids are made."""

import uuid
from pathlib import Path

from schemas.files import write_once


def node_id(data_dir: Path) -> str:
    """Made at the first call and kept in the folder."""
    data_dir.mkdir(parents=True, exist_ok=True)
    file = data_dir / "node-id"
    write_once(file, uuid.uuid4().hex[:12].encode())
    return file.read_text()
