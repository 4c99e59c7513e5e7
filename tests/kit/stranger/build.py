"""Builds and runs `Stranger.java`: a client of the retriever in another language, made from the committed proto alone.

Maven copies the stock tools and libraries once into the cache folder (`python -m tests.kit.stranger.build`, which
`make setup` calls). Building needs no network after that.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from nearline.broker.jars import ensure_jars

HERE: Final = Path(__file__).parent
PROTO: Final = HERE.parents[2] / "retriever" / "nearline.proto"
_QUICK: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
"""For the short life of the compiler and of the client: Java's second compiler costs more than it gains."""


class Candidate(NamedTuple):
    post_id: str
    score: float
    tier: str


class Stranger:
    def __init__(self, folder: Path) -> None:
        """Builds it in this empty folder, in some seconds."""
        tools = ensure_tools()
        self._classpath = f"{folder / 'classes'}:{tools}/*"
        _generate(tools, folder)
        sources = [*folder.rglob("*.java"), HERE / "Stranger.java"]
        flags = [f"-J{flag}" for flag in _QUICK]
        _run(["javac", *flags, "-proc:none", "-nowarn", "-cp", f"{tools}/*", "-d", folder / "classes", *sources])

    def ask(self, address: str, member_id: str, k: int) -> list[Candidate]:
        """`address` is host:port."""
        command = ["java", *_QUICK, "-cp", self._classpath, "Stranger", address, member_id, str(k)]
        rows = [line.split("\t") for line in _run(command).splitlines()]
        return [Candidate(post_id, float(score), tier) for post_id, score, tier in rows]


def ensure_tools() -> Path:
    """The folder with the two programs and the jars. Maven copies them if they are not there. Raises StartFailed."""
    tools = ensure_jars(HERE / "pom.xml")
    for program in tools.glob("*.exe"):
        if not os.access(program, os.X_OK):  # Maven copies programs without the right to run them
            program.chmod(0o755)
    return tools


def _generate(tools: Path, folder: Path) -> None:
    """The proto alone lies in the folder, so nothing else of ours can be used by mistake."""
    shutil.copy(PROTO, folder)
    protoc, plugin = (next(tools.glob(name)) for name in ("protoc-[0-9]*.exe", "protoc-gen-grpc-java-*.exe"))
    outputs = [f"--java_out={folder}", f"--grpc-java_out={folder}"]
    _run([protoc, f"--plugin=protoc-gen-grpc-java={plugin}", f"--proto_path={folder}", *outputs, PROTO.name])


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


if __name__ == "__main__":
    ensure_tools()
