"""The newest good state of the log in a file, for a process that may have to start while the broker is away.

A line for each record: its key, and the record as in the topic. The file is only a memory: what the log says counts as
soon as it can be read, and a file that cannot be read counts as missing.
"""

from pathlib import Path
from typing import Final

import msgspec
import structlog

from schemas.files import write_whole
from schemas.generations import encode_record, key_of
from schemas.ids import Offset
from streams.generations.state import Generations

FILE: Final = "generations.jsonl"

log = structlog.get_logger(__name__)


def last_state_file(data_dir: Path) -> Path:
    return data_dir / FILE


def remember(file: Path, state: Generations) -> None:
    """The folder must exist. Raises OSError."""
    lines = [
        msgspec.json.encode([key_of(record).decode(), msgspec.Raw(encode_record(record))])
        for record in state.all_records
    ]
    write_whole(file, b"".join(line + b"\n" for line in lines))


def remembered(file: Path) -> Generations | None:
    """None if there is none that is whole."""
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("the last state of the generations cannot be read", file=str(file), error=str(error))
        return None
    state = Generations()
    try:
        for number, line in enumerate(lines):
            key, value = msgspec.json.decode(line, type=tuple[str, msgspec.Raw])
            state = state.with_message(key.encode(), bytes(value), Offset(number))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        log.warning("the last state of the generations is damaged", file=str(file), error=str(error))
        return None
    if state.damages or state.pointer is None or state.contradiction() is not None:
        log.warning("the last state of the generations is damaged", file=str(file))
        return None
    return state
