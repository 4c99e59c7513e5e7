"""The file `forms.json` of a data folder: the newest form in which each kind of thing was written there.

Whoever works on the folder looks at it first. A folder without it was last used by a version before there were forms.
"""

from pathlib import Path
from typing import Final

import msgspec

from nearline.errors import BadSettings
from schemas.files import write_whole
from schemas.forms import IN_FOLDER, Forms, refuse_newer, to_write_down

_FILE: Final = "forms.json"


def agree_on_folder_forms(data_dir: Path, known: Forms = IN_FOLDER) -> None:
    """Writes down what this version will write. Call it before anything else in the folder is opened. Raises NewerForm
    if a newer version has written there, and BadSettings if the file cannot be read."""
    file = data_dir / _FILE
    try:
        stored = msgspec.json.decode(file.read_bytes(), type=dict[str, int]) if file.exists() else {}
    except (OSError, msgspec.DecodeError) as error:
        raise BadSettings(
            f"data_dir: {file} cannot be read ({error}); remove it if no newer version of nearline has used this folder"
        ) from None
    refuse_newer(f"the data folder {data_dir}", stored, known)
    if newer := to_write_down(stored, known):
        write_whole(file, msgspec.json.format(msgspec.json.encode({**stored, **newer})) + b"\n")
