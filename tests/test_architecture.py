"""Folders are the architecture: arrows point one way, and quick commands stay quick."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.order import LONGEST

ROOT = Path(__file__).parent.parent
KIT = ROOT / "tests" / "kit"
MAY_IMPORT = {
    "schemas": set(),
    "contexts": {"schemas"},
    "encoders": {"schemas"},
    "indexer": {"schemas"},
    "streams": {"schemas", "contexts", "encoders", "indexer"},
    "retriever": {"schemas", "encoders", "indexer"},
    "trainer": {"schemas", "contexts", "encoders"},
    "nearline": {"schemas", "contexts", "encoders", "indexer", "streams", "retriever", "trainer"},
}
STAGES = ("contexts", "encode", "index", "trending")
"""Folders of `streams/` that know `streams/kafka/` and neither each other nor who asks about them."""
NOT_IN_COMMANDS = (
    "torch",
    "sklearn",
    "faiss",
    "transformers",
    "sentence_transformers",
    "faust",
    "fastapi",
    "qdrant_client",
)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_arrows_point_one_way(folder: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {package}"
        for file in (ROOT / folder).rglob("*.py")
        for package in {name.partition(".")[0] for name in _imported(file)}
        if package in MAY_IMPORT and package not in MAY_IMPORT[folder] | {folder}
    ]
    assert wrong == []


def test_stages_know_kafka_and_not_each_other() -> None:
    allowed = {"kafka": set(), "generations": {"kafka"}, "operate": {"kafka", "generations"}}
    allowed |= {stage: {"kafka"} for stage in STAGES}
    assert {room for room in _rooms("streams") if (ROOT / "streams" / room).is_dir()} == allowed.keys()
    for room, rooms in allowed.items():
        known = {name for name in _rooms("streams")[room] if name in allowed}
        assert known <= rooms, f"streams/{room} imports {known - rooms}"


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_no_circle_between_the_rooms_of_a_folder(folder: str) -> None:
    """Raises CycleError, which names the circle. A file beside the rooms is a room of its own."""
    TopologicalSorter(_rooms(folder)).prepare()


def test_no_test_module_is_imported() -> None:
    """What two of them share stands in `tests/kit` or in a conftest."""
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / "tests").rglob("*.py")
        for name in _imported(file)
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    ]
    assert wrong == []


def test_the_kit_imports_nothing_else_of_the_tests() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in KIT.rglob("*.py")
        for name in _imported(file)
        if name.startswith("tests.") and not name.startswith("tests.kit.")
    ]
    assert wrong == []


def test_the_page_of_the_kit_names_each_of_its_files() -> None:
    page = (KIT / "README.md").read_text()
    files = {file for file in KIT.rglob("*.py") if file.stem != "__init__" and file.parent.name != "children"}
    assert [file.name for file in files if file.name not in page and f"`{file.stem}." not in page] == []


def test_the_longest_tests_are_where_the_order_of_tests_looks_for_them() -> None:
    assert [path for path in LONGEST if not (ROOT / path).exists()] == []


def test_what_the_architecture_page_names_is_there() -> None:
    """Everything in backticks with a slash in it is a path from the root, or a room of the folder in the same row."""
    missing = []
    for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines():
        paths = [path for path in re.findall(r"`([^`]+)`", line) if "/" in path]
        folder = paths[0] if line.startswith("| `") and paths else ""
        missing += [path for path in paths if not (ROOT / path).exists() and not (ROOT / folder / path).exists()]
    assert missing == []


def test_the_client_imports_nothing_that_a_stranger_does_not_have() -> None:
    """`tests/test_wheel.py` sees what it imports when it asks; this sees imports inside functions too."""
    files = [ROOT / "nearline" / "__init__.py", *(ROOT / "nearline" / "client").rglob("*.py")]
    imported = {name for file in files for name in _imported(file)}
    ours = {name for name in imported if name.partition(".")[0] in MAY_IMPORT}
    allowed = ("nearline.client", "retriever.errors", "retriever.nearline_pb2")
    assert [name for name in ours if not name.startswith(allowed)] == []
    others = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - MAY_IMPORT.keys()
    assert others == {"grpc"}


def test_a_benchmark_can_be_called_as_a_file() -> None:
    """Its folder is then searched first: it must hide none of our folders and no module of Python."""
    names = {file.stem for file in (ROOT / "benchmarks").glob("*.py")} - {"__init__"}
    assert names & (MAY_IMPORT.keys() | sys.stdlib_module_names) == set()


def test_loading_every_command_loads_no_model_and_no_search_library() -> None:
    code = f"""
import sys
import click
from nearline.cli import cli
for name in cli.list_commands(click.Context(cli)):
    cli.get_command(click.Context(cli), name)
loaded = [name for name in {NOT_IN_COMMANDS} if name in sys.modules]
sys.exit(f"loaded: {{', '.join(loaded)}}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _rooms(folder: str) -> dict[str, set[str]]:
    """Of each room or file of a folder the others that it imports."""
    rooms: dict[str, set[str]] = {}
    for file in (ROOT / folder).rglob("*.py"):
        room = file.relative_to(ROOT / folder).parts[0].removesuffix(".py")
        known = {name.split(".")[1] for name in _imported(file) if name.startswith(f"{folder}.")}
        rooms.setdefault(room, set()).update(known - {room})
    return rooms


def _imported(file: Path) -> set[str]:
    """Modules of all absolute imports, also of those inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names
