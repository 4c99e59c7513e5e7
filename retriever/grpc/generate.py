"""Makes the message classes of `retriever/nearline.proto`: `python -m retriever.grpc.generate`.

They are committed, so that nobody needs protoc to run nearline, and a test checks that they equal what is made anew.
The calls have paths such as `/nearline.v1.Retriever/Retrieve`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PROTO: Final = "retriever/nearline.proto"
GENERATED: Final = ("retriever/nearline_pb2.py", "retriever/nearline_pb2.pyi")


def generate(root: Path) -> None:
    """Writes the files below this folder."""
    outputs = (f"--python_out={root}", f"--pyi_out={root}")
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", ROOT, *outputs, PROTO], check=True, cwd=ROOT)


def render() -> dict[str, bytes]:
    """The content of each file, by its path."""
    with tempfile.TemporaryDirectory(prefix="nearline-proto-") as folder:
        generate(Path(folder))
        return {path: (Path(folder) / path).read_bytes() for path in GENERATED}


if __name__ == "__main__":
    generate(ROOT)
