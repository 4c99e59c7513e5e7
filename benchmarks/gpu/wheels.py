"""Python packages from a folder of wheels, for a machine that has no others and cannot fetch any."""

import sys
import zipfile
from pathlib import Path


def use_wheels(wheels: Path, folder: Path) -> None:
    """Unpacks all wheels into `folder`, which then comes before what is installed. A wheel with compiled files works
    too, if it is for this Python and this machine."""
    files = sorted(wheels.glob("*.whl"))
    if not files:
        raise SystemExit(f"{wheels} holds no wheels; give a folder with .whl files")
    for file in files:
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(folder)
    sys.path.insert(1, str(folder))
