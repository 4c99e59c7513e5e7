"""The name of this machine's data folder, of which transactional ids are made."""

import uuid
from contextlib import suppress
from pathlib import Path


def node_id(data_dir: Path) -> str:
    """Made at the first call and kept in the folder."""
    file = data_dir / "node-id"
    with suppress(FileExistsError):
        data_dir.mkdir(parents=True, exist_ok=True)
        temporary = data_dir / f"node-id.{uuid.uuid4().hex}"
        temporary.write_text(uuid.uuid4().hex[:12])
        try:
            # A link: if two processes make an id at once the first one wins, and nobody reads half an id.
            file.hardlink_to(temporary)
        finally:
            temporary.unlink()
    return file.read_text()
