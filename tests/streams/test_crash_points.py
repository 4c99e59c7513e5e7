"""Every place between two effects has a name that the adversary knows, and leaves there as often as it is told."""

import ast
import re
import subprocess
import sys
from pathlib import Path

from streams import crash_points

SOURCES = Path(__file__).parent.parent.parent
PACKAGES = ("streams", "indexer", "retriever", "nearline")
STAGES = (
    "streams/transactional.py",
    "streams/index_loop.py",
    "streams/index_records.py",
    "streams/delivery.py",
    "streams/trending.py",
    "retriever/hot_feed.py",
)
"""Where effects follow each other."""
EFFECTS = {
    *("begin_transaction", "produce", "flush", "send_offsets_to_transaction", "commit_transaction", "committed"),
    *("commit", "store_offsets", "write", "upsert", "delete", "remove", "sweep", "send", "send_and_wait", "ack"),
}
IDLE = "only offsets of control records: a crash repeats nothing"
APPROXIMATE = "a crash may cost or repeat a few events of scores that decay anyway"
IN_MEMORY = "nothing of the hot tier outlives the process"
NAMED = {
    "transactional._begin: begin_transaction": "transaction.begun",
    "transactional._transact: commit_transaction": "transaction.committed",
    "transactional._transact: committed": "transaction.rows-written",
    "transactional._produce: produce": "transaction.outputs-sent",
    "transactional._send_offsets: send_offsets_to_transaction": "transaction.offsets-sent",
    "transactional._commit_offsets: commit_transaction": IDLE,
    "transactional._offsets: committed": "it only asks",
    "index_records._write: write": "index.indexed",
    "index_records._flush: flush": "index.flushed",
    "delivery._hand_over: produce": "index.dead-lettered",
    "delivery.deliver: flush": "index.dead-lettered",
    "index_loop._store: store_offsets": "index.stored",
    "index_loop._revoked: commit": "index.committed",
    "index_loop._sweep_now_and_then: sweep": "removes what nobody sees; nothing follows that stands on it",
    "trending.count: ack": APPROXIMATE,
    "trending._write_lists: send": APPROXIMATE,
    "hot_feed._upsert: upsert": IN_MEMORY,
}
"""Each effect of a stage: the place behind it where the adversary lets the process leave, or why there is none."""


def test_every_name_is_known_and_every_known_name_is_somewhere() -> None:
    named = [
        name
        for package in PACKAGES
        for file in (SOURCES / package).rglob("*.py")
        for name in re.findall(r'\bpoint\("([^"]+)"\)', file.read_text())
    ]
    assert sorted(named) == sorted(crash_points.NAMES)


def test_every_effect_has_a_name() -> None:
    """A new one stands in no line above. Give it a crash point, or say there why it needs none."""
    found = {effect for file in STAGES for effect in _effects(SOURCES / file)}
    assert found == set(NAMED)
    places = {place for place in NAMED.values() if " " not in place}
    assert places == set(crash_points.NAMES)


def _effects(file: Path) -> set[str]:
    functions = [
        node
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {
        f"{file.stem}.{_innermost(functions, call).name}: {call.func.attr}"
        for function in functions
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in EFFECTS
    }


def _innermost(
    functions: list[ast.FunctionDef | ast.AsyncFunctionDef], call: ast.Call
) -> ast.FunctionDef | ast.AsyncFunctionDef:
    around = [one for one in functions if one.lineno <= call.lineno <= (one.end_lineno or one.lineno)]
    return max(around, key=lambda function: function.lineno)


def test_a_stage_leaves_as_often_as_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "crash.json"
    crash_points.write_file(file, "index.flushed", {"cold": 2})
    assert [_status(file, "cold"), _status(file, "encode"), _status(file, "cold")] == [86, 0, 86]
    assert crash_points.left_in(file) == {}
    assert _status(file, "cold") == 0


def _status(file: Path, stage: str) -> int:
    code = (
        "import os; from streams.crash_points import arm_from, point; "
        f"arm_from(os.environ, {stage!r}); point('index.stored'); point('index.flushed')"
    )
    environment = {"PATH": "", crash_points.FILE_VARIABLE: str(file)}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False, cwd=SOURCES).returncode
