"""Coverage-guided fuzzing of everything that reads input from others: `make fuzz`.

`python -m tests.fuzz.run [--inputs 1000000] [--seed N] [--targets T…] [--json F]`. Atheris runs each target in a
process of its own. An input that raises is a crash; an input that takes over TIMEOUT_S twice is a hang.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.kit.table import Figure, report
from tests.fuzz.parts import WORDS, seeds

SHARES: Final = {
    "events": 0.30,
    "hops": 0.10,
    "contexts": 0.15,
    "embeddings": 0.10,
    "wires": 0.15,
    "prompts": 0.07,
    "retrieve": 0.07,
    "grpc": 0.06,
}
"""Each target's share of the inputs. What strangers send gets most."""
TIMEOUT_S: Final = 5
_MAX_BYTES: Final = 4096
END_S: Final = 10.0
"""A process has at least this long to end when all its inputs are done."""
_TOOK_TOO_LONG: Final = 70
_ALL_DONE: Final = re.compile(r"^(Done \d+ runs|Executed .*) in \d+ ", re.MULTILINE)
"""Printed at the end of a run over many inputs, or over a file. Missing if an input ended the process."""
_TAIL_CHARS: Final = 3000


class Result(NamedTuple):
    """`printed` is the end of the last process's output if that process failed, else empty."""

    inputs: int
    crashes: int
    hangs: int
    seconds: float
    printed: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--targets", nargs="*", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: list[Figure] = []
    results: list[Result] = []
    whole = sum(SHARES[name] for name in options.targets)
    for name in options.targets:
        todo = round(options.inputs * SHARES[name] / whole)
        result = fuzz(f"tests.fuzz.targets:{name}", seeds(name), todo, options.seed)
        print(f"{name}: {result.inputs} inputs in {result.seconds:.0f} s\n{result.printed}", flush=True)
        results.append(result)
        figures += [
            Figure(f"{name}: inputs", result.inputs, todo),
            Figure(f"{name}: inputs/s", result.inputs / result.seconds),
        ]
    figures += [
        Figure("inputs", sum(result.inputs for result in results), options.inputs),
        Figure("crashes", sum(result.crashes for result in results), 0, "at_most"),
        Figure("hangs", sum(result.hangs for result in results), 0, "at_most"),
    ]
    return report(figures, options.json)


def fuzz(target: str, corpus: list[bytes], inputs: int, seed: int, timeout_s: int = TIMEOUT_S) -> Result:
    """Ends at the first crash or hang."""
    began, done = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="nearline-fuzz-") as temporary:
        folder = Path(temporary)
        (folder / "corpus").mkdir()
        for number, body in enumerate(corpus):
            (folder / "corpus" / f"seed-{number}").write_bytes(body)
        (folder / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS))
        while True:
            status, output = _child(folder, target, timeout_s, inputs - done, seed)
            done += _executed(output)
            crashes, hangs = int(status not in (0, _TOOK_TOO_LONG)), 0
            if status == _TOOK_TOO_LONG:
                hangs = int(_hangs_again(folder, target, timeout_s))
            if crashes or hangs or done >= inputs:
                ending = "" if status == 0 else output[-_TAIL_CHARS:]
                return Result(done, crashes, hangs, time.monotonic() - began, ending)
            # The machine stood still meanwhile: go on, on another way.
            seed += 1


def _child(folder: Path, target: str, timeout_s: int, inputs: int, seed: int) -> tuple[int, str]:
    options = [f"-runs={inputs}", f"-seed={seed}", f"-dict={folder / 'words'}", f"-max_len={_MAX_BYTES}"]
    return _run(folder, target, timeout_s, "-print_final_stats=1", *options, str(folder / "corpus"))


def _hangs_again(folder: Path, target: str, timeout_s: int) -> bool:
    inputs = sorted(folder.glob("timeout-*"))
    hangs = any(_run(folder, target, timeout_s, str(file))[0] == _TOOK_TOO_LONG for file in inputs)
    for file in inputs:
        file.unlink()
    return hangs


def _run(folder: Path, target: str, timeout_s: int, *arguments: str) -> tuple[int, str]:
    fixed = [f"-timeout={timeout_s}", f"-artifact_prefix={folder}/", "-rss_limit_mb=4096"]
    command = [sys.executable, "-m", "tests.fuzz.child", target, *fixed, *arguments]
    # Into a file: a child that never ends would never close a pipe.
    output = folder / "output"
    with output.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as child:
        status = _status(child, output)
    lines = output.read_text(errors="replace").splitlines()
    return status, "\n".join(line for line in lines if not line.startswith(("INFO: ", "WARNING: ")))


def _status(child: subprocess.Popen[bytes], output: Path) -> int:
    """Libfuzzer watches its inputs, and not the end of the process: what hangs there is the fault of none of them."""
    looks = 0
    while looks < 2:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(END_S)
        looks += bool(_ALL_DONE.search(output.read_text(errors="replace")))
    child.kill()
    return 0


def _executed(output: str) -> int:
    """Libfuzzer says it at its end, however it ends."""
    numbers = [line.split()[-1] for line in output.splitlines() if "number_of_executed_units" in line]
    return int(numbers[-1]) if numbers else 0


def _escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


if __name__ == "__main__":
    raise SystemExit(main())
