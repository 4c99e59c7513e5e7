"""Folders are the architecture: arrows point one way, and quick commands stay quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
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
        for package in _imported(file)
        if package in MAY_IMPORT and package not in MAY_IMPORT[folder] | {folder}
    ]
    assert wrong == []


def test_loading_every_command_loads_no_model_and_no_search_library() -> None:
    code = f"""
import sys
import click
from nearline.cli import cli
for name in cli.list_commands(click.Context(cli)):
    cli.get_command(click.Context(cli), name)
found = [name for name in {NOT_IN_COMMANDS} if name in sys.modules]
sys.exit(f"loaded: {{', '.join(found)}}" if found else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _imported(file: Path) -> set[str]:
    """First names of all absolute imports, also of those inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}
