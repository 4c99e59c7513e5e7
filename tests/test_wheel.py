"""The wheel that strangers install: `pip install nearline[client]` must stay small, and work with nothing else."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Final

import pytest

from retriever import nearline_pb2 as pb
from tests.kit.grpc_stand_in import StandIn

ROOT: Final = Path(__file__).parent.parent
CLIENT: Final = {"grpcio", "protobuf"}
IMPORTED: Final = {"grpc", "google", "typing_extensions"}
"""Packages of others that the client imports: those of CLIENT, and what grpcio needs itself."""
OURS: Final = ("nearline", "nearline.client", "retriever", "retriever.errors", "retriever.nearline_pb2")

ONLY_THE_CLIENT: Final = f"""
import sys
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        first = name.partition(".")[0]
        ours = {{module.partition(".")[0] for module in {OURS}}}
        if first not in sys.stdlib_module_names | {IMPORTED} | ours:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled())
sys.path.insert(0, sys.argv.pop(1))
"""
"""Begins a program that runs as if nothing but the wheel in this folder and what it needs were installed."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def metadata(unpacked: Path) -> Message:
    return Parser().parsestr(next(unpacked.glob("*.dist-info/METADATA")).read_text())


def required(metadata: Message, extra: str | None = None) -> set[str]:
    lines = (line.partition(";") for line in metadata.get_all("Requires-Dist", []))
    wanted = [
        line for line, _, marker in lines if (f"extra == '{extra}'" in marker if extra else "extra" not in marker)
    ]
    return {re.split(r"[\s<>=!~\[]", line.strip())[0] for line in wanted}


def test_the_client_needs_two_packages(metadata: Message) -> None:
    assert required(metadata) == CLIENT
    assert required(metadata, "client") == set()
    assert metadata.get_all("Provides-Extra") == ["client", "server"]


def test_the_server_needs_the_rest(metadata: Message) -> None:
    assert {"torch", "confluent-kafka", "qdrant-client", "fastapi", "click"} <= required(metadata, "server")


def test_no_protobuf_is_allowed_that_the_message_classes_refuse(metadata: Message) -> None:
    made_by = re.search(r"Protobuf Python Version: ([\d.]+)", (ROOT / "retriever" / "nearline_pb2.py").read_text())
    assert made_by is not None
    assert f"protobuf>={made_by[1]}" in metadata.get_all("Requires-Dist", [])


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    with StandIn() as stand_in:
        stand_in.answer(pb.RetrieveResponse(post_ids=["p1"], scores=[0.5], tiers=[pb.TIER_HOT]))
        yield stand_in


def run(program: str, unpacked: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """With only the wheel and what the client needs."""
    command = [sys.executable, "-c", f"{ONLY_THE_CLIENT}\n{program}", str(unpacked), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def test_the_client_asks_where_nothing_else_is_installed(unpacked: Path, stand_in: StandIn) -> None:
    program = f"""
import nearline
assert not [name for name in sys.modules if name.startswith("grpc")], "the client is imported when it is used"
with nearline.Client(sys.argv[1], timeout_s=20.0) as client:
    print(*client.retrieve(member_id="m1").post_ids)
print(nearline.__file__)
print(*(name for name in sys.modules if name.startswith({OURS}) and not name.startswith("nearline.client.")))
"""
    ran = run(program, unpacked, stand_in.url)
    assert ran.returncode == 0, ran.stderr
    candidates, file, modules = ran.stdout.splitlines()
    assert candidates == "p1"
    assert Path(file).is_relative_to(unpacked)
    assert set(modules.split()) == set(OURS)


def test_the_command_says_what_is_missing_where_only_the_client_is_installed(unpacked: Path) -> None:
    program = f"{ONLY_THE_CLIENT}\nfrom nearline.__main__ import main\nmain()"
    ran = subprocess.run(
        [sys.executable, "-c", program, unpacked], capture_output=True, text=True, check=False, cwd="/"
    )
    assert ran.returncode == 1
    assert ran.stderr == "nearline: only the client is installed; for the commands: pip install 'nearline[server]'\n"
