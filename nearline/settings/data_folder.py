"""Makes folders that a command writes into, first of all the data folder, which holds everything of an instance."""

import tempfile
from pathlib import Path

from nearline.errors import BadSettings


def make_data_folder(data_dir: Path) -> None:
    """Makes the folder if it is missing. Raises BadSettings where nothing can be written into it."""
    make_writable_folder(data_dir, "data_dir", "--data-dir")


def make_writable_folder(folder: Path, name: str, option: str) -> None:
    """Makes the folder if it is missing. Raises BadSettings where nothing can be written into it. `name`: what the user
    knows it as; `option`: what names another one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadSettings(
            f"{name}: {folder} cannot be made or written ({error.strerror}); choose another with {option}"
        ) from None
