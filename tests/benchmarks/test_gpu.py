"""The benchmark of a GPU runs on a CPU too, in tiny sizes, so that it cannot rot."""

import ast
import importlib
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, Final

import dill
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from torch.nn.attention import SDPBackend

from benchmarks.gpu import correctness
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.device import Device
from benchmarks.gpu.markdown import page
from benchmarks.gpu.run import LeftOut, Part
from benchmarks.gpu.run import Run as GpuRun
from benchmarks.gpu.sizes import QUICK
from benchmarks.gpu.wheels import use_wheels
from benchmarks.kit.table import Figure
from tests.kit.forks import Forks, Run, output_of

ROOT: Final = Path(__file__).parents[2]
OURS: Final = {file.parent.name for file in ROOT.glob("*/__init__.py")}
PAGE: Final = ROOT / "benchmarks" / "gpu" / "README.md"
THERE: Final = ("torch", "transformers", "sentence-transformers", "numpy")
NEVER: Final = {"confluent_kafka", "rocksdict", "qdrant_client", "qdrant_edge", "faust", "aiokafka", "grpc", "fastapi"}


def test_every_part_runs_on_a_cpu(tmp_path: Path, forks: Forks) -> None:
    whole, output = forked(tmp_path, forks, [0])
    assert whole["failed"] == [], output
    assert whole["finished"]
    bounds = {row["figure"]: row["bound"] for row in whole["figures"]}
    assert bounds["a made-up neighbour: posts without a vector"] == 0
    assert bounds["loss curve: difference of these / CPU"] is not None
    assert bounds["two processes on one card: difference of the mean loss to fp32 on a CPU / that"] is not None
    assert {row["figure"].partition(":")[0] for row in whole["figures"]} == {
        "tiny eager",
        "no groups",
        "batch-invariant attention",
        "rates of the device",
        "tiny better of eager and compiled",
        "tiny, 12 tokens before each",
        "tiny sentence-transformers, padded",
        "tiny, attention = invariant",
        "tiny, attention = any",
        "0.001024M posts, filling",
        "0.001024M posts, exactness",
        "0.001024M posts",
        "0.001024M posts, 1000 upserts/s beside",
        "the whole tier, 500 posts",
        "a made-up neighbour",
        "LoRA",
        "all weights",
        "loss curve",
        "a kill and a resume",
        "two processes on one card",
        "all weights, sums in any order",
        "all weights, computed twice",
        "the stage's loops",
    }
    assert [entry["what"] for entry in whole["left_out"]] == [
        "tiny compiled",
        "flash and cuDNN",
        "tiny sentence-transformers, unpadded",
        "0.001024M posts, FAISS",
        "two processes, weights divided",
    ]
    assert re.fullmatch(
        r"gloo: accelerate [\d.]+ does not divide weights on a cpu: asked for FSDP2, it makes MULTI_CPU of the two "
        "processes, each with all weights",
        whole["left_out"][-1]["why"],
    )


def test_when_the_time_is_over_it_ends_and_says_what_it_left_out(tmp_path: Path, forks: Forks) -> None:
    whole, _ = forked(tmp_path, forks, [0, 1], "--minutes", "0.05")
    assert whole["failed"] == []
    assert {entry["why"] for entry in whole["left_out"]} >= {"the time was over"}
    assert whole["left_out"][-1]["what"] == "5 trainer"


def forked(tmp_path: Path, forks: Forks, statuses: list[int], *options: str) -> tuple[dict[str, Any], str]:
    """The JSON and the output of a run whose exit status is one of these."""
    figures = tmp_path / "figures.json"
    arguments = ["--device", "cpu", "--quick", "--json", str(figures), *options]
    run = Run("benchmarks.gpu", arguments, str(tmp_path / "output"))
    (status,) = forks.run(run)
    assert status in statuses, output_of(run)
    return json.loads(figures.read_text()), output_of(run)


def new_run(tmp_path: Path) -> GpuRun:
    about = {"device": "a CPU", "quick": True, "versions": {"torch": "2"}}
    device = Device("cpu", QUICK)
    return GpuRun(device, QUICK, tmp_path, about=about, json_path=tmp_path / "figures.json", minutes=9.0)


def broken() -> Iterator[Figure]:
    yield Figure("before", 1.0)
    raise ValueError("it broke")


def impossible() -> Iterator[Figure]:
    raise LeftOut("there is none")
    yield


def test_after_a_failure_the_next_one_runs_and_the_file_has_both(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.arm("first", broken)
    run.arm("second", impossible)
    run.arm("third", lambda: [Figure("after", 2.0, 1.0, "at_most")])
    whole = json.loads((tmp_path / "figures.json").read_text())
    assert [row["figure"] for row in whole["figures"]] == ["first: before", "third: after"]
    assert whole["failed"] == [{"what": "first", "error": "ValueError: it broke"}]
    assert whole["left_out"] == [{"what": "second", "why": "there is none"}]
    assert not whole["finished"]
    assert run.finish() == 1
    text = page(json.loads((tmp_path / "figures.json").read_text()))
    assert "| third: after | 2 | <= 1 | **no** |" in text
    assert "- first: ValueError: it broke" in text


def test_a_part_that_cannot_be_loaded_fails_alone_and_one_without_time_is_left_out(tmp_path: Path) -> None:
    def missing(_: GpuRun) -> None:
        importlib.import_module("no_such_library")

    run = new_run(tmp_path)
    run.parts(
        [
            Part("a", 0, missing),
            Part("b", 1e6, missing),
            Part("c", 0, lambda run: run.arm("arm", lambda: [Figure("figure", 1.0)])),
        ]
    )
    assert run.finish() == 1
    whole = json.loads((tmp_path / "figures.json").read_text())
    assert [entry["what"] for entry in whole["failed"]] == ["a"]
    assert [entry["what"] for entry in whole["left_out"]] == ["b"]
    assert [row["figure"] for row in whole["figures"]] == ["arm: figure"]
    assert whole["finished"]


def test_a_library_that_every_part_needs_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    for name in ("run", "models"):
        monkeypatch.delitem(sys.modules, f"benchmarks.gpu.{name}")
    assert main(["--device", "cpu", "--quick"]) == 1
    assert re.search(r"^the module msgspec is missing.* --wheels DIR .*README", capsys.readouterr().err)


def test_where_cudnn_cannot_do_it_flash_is_measured_and_the_comparison_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_backend(_: GpuRun, backend: SDPBackend, *__: object) -> tuple[float, torch.Tensor]:
        if backend == SDPBackend.CUDNN_ATTENTION:
            raise RuntimeError("constraints are not satisfied:\n  - cuDNN >= 9.18 on SM90 or SM100 is required")
        return 0.002, torch.zeros(1)

    monkeypatch.setattr(correctness, "_on_backend", on_backend)
    run = new_run(tmp_path)
    run.device.is_gpu = True
    run.arm("both", lambda: correctness._attention(run))
    assert [figure.name for figure in run.figures] == ["both: flash, ms a layer of a batch"]
    whole = json.loads((tmp_path / "figures.json").read_text())
    assert whole["failed"] == []
    assert "SM90 or SM100 is required" in whole["left_out"][0]["why"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 3
    assert "no NVIDIA GPU is here" in capsys.readouterr().err


def test_a_cpu_is_only_for_a_look(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--device", "cpu"])
    assert "only --quick" in capsys.readouterr().err


def test_what_a_wheel_holds_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with pytest.raises(SystemExit, match="holds no wheels"):
        use_wheels(wheels, tmp_path)
    with zipfile.ZipFile(wheels / "brought_in_a_wheel-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("brought_in_a_wheel.py", "answer = 42\n")
    use_wheels(wheels, tmp_path)
    brought = importlib.import_module("brought_in_a_wheel")
    assert brought.answer == 42
    assert b"answer" not in dill.dumps(brought), "by name, as any installed module: datasets pickles so"


def test_its_page_names_all_that_it_imports_and_no_kafka_is_among_that() -> None:
    """Imports at the top of a module, and in this benchmark those inside functions too."""
    imported = others_imported(ROOT / "benchmarks" / "gpu")
    assert imported & NEVER == set()
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)) == imported


def test_the_wheels_that_its_page_downloads_need_nothing_else() -> None:
    """Beside what is there with torch and the like. They are downloaded without what they need."""
    text = PAGE.read_text()
    (command,) = re.findall(r"--dest wheels \\\n(.+?)\n\n", text, re.DOTALL)
    wheels, there = {*command.replace("\\", "").split()}, needed_by(THERE)
    assert needed_by(wheels) <= wheels | there
    imported = {*re.findall(r"^\| `\w+` \| ([\w-]+) \|", text, re.MULTILINE)}
    assert imported - there - wheels == {"faiss-gpu"}


def needed_by(packages: Iterable[str]) -> set[str]:
    """They, and all that is installed because of them."""
    needed: set[str] = set()
    to_read = [*packages]
    while to_read:
        name = canonicalize_name(to_read.pop())
        if name not in needed:
            needed.add(name)
            to_read += required_by(name)
    return needed


def required_by(package: str) -> list[str]:
    """Without its extras."""
    try:
        requirements = [Requirement(line) for line in requires(package) or ()]
    except PackageNotFoundError:
        return []
    return [each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]


def others_imported(folder: Path) -> set[str]:
    """Libraries that loading the modules of a folder loads, by our modules that they import."""
    to_read = sorted(folder.glob("*.py"))
    read, others = set(to_read), set()
    while to_read:
        file = to_read.pop()
        for name in imports_of(ast.parse(file.read_text()).body, inside=file.parent == folder):
            top = name.partition(".")[0]
            if top not in OURS:
                others.add(top)
            for new in files_of(name) - read if top in OURS else ():
                read.add(new)
                to_read.append(new)
    return others - sys.stdlib_module_names


def files_of(name: str) -> set[Path]:
    """Of a module, the packages around it included; none if the name is not one of a module."""
    parts = name.split(".")
    packages = {ROOT.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)}
    return {file for file in (*packages, ROOT.joinpath(*parts).with_suffix(".py")) if file.exists()}


def imports_of(nodes: list[ast.stmt], *, inside: bool) -> Iterator[str]:
    """`inside`: those within functions too, and of a module that is run. What only types need is not loaded."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.FunctionDef):
            yield from imports_of(node.body, inside=inside) if inside else ()
        elif isinstance(node, ast.If):
            test = ast.unparse(node.test)
            is_left_out = test == "TYPE_CHECKING" or (test == "__name__ == '__main__'" and not inside)
            yield from imports_of([*([] if is_left_out else node.body), *node.orelse], inside=inside)
        elif isinstance(node, ast.ClassDef | ast.With | ast.Try):
            yield from imports_of(node.body, inside=inside)
