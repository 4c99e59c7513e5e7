"""The name of this machine, of which transactional ids are made."""

import uuid
from pathlib import Path

from schemas.files import write_once
from streams.settings import KafkaSettings


def node_id(kafka: KafkaSettings, data_dir: Path) -> str:
    """What the settings say; else made at the first call, and kept in the data folder."""
    if kafka.node_id is not None:
        return kafka.node_id
    data_dir.mkdir(parents=True, exist_ok=True)
    file = data_dir / "node-id"
    write_once(file, uuid.uuid4().hex[:12].encode())
    return file.read_text()
