"""Makes the data folder, which holds everything of an instance."""

import tempfile
from pathlib import Path

from nearline.errors import BadSettings


def make_data_folder(data_dir: Path) -> None:
    """Makes the folder if it is missing. Raises BadSettings where nothing can be written into it."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise BadSettings(
            f"data_dir: {data_dir} cannot be made or written ({error.strerror}); choose another with --data-dir"
        ) from None
