"""Python packages from a folder of wheels, for a machine that has no others and cannot fetch any."""

import sys
import zipfile
from pathlib import Path
from typing import Final

_SITE: Final = "site-packages"
"""By this name dill knows modules that it need not pickle. It would pickle all of pyarrow, and fail, when `datasets`
gives a data set its fingerprint."""


def use_wheels(wheels: Path, folder: Path) -> None:
    """Unpacks all wheels in `folder`, which then come before what is installed. A wheel with compiled files works too,
    if it is for this Python and this machine."""
    files = sorted(wheels.glob("*.whl"))
    if not files:
        raise SystemExit(f"{wheels} holds no wheels; give a folder with .whl files")
    for file in files:
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(folder / _SITE)
    sys.path.insert(1, str(folder / _SITE))
