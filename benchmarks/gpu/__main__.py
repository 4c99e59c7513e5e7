"""The encoder, the hot tier, the trainer and the encode stage on an NVIDIA GPU: is everything right, and how near to
the floor is it? The most important parts come first; the run ends in time, and says what it left out.

`python -m benchmarks.gpu [--quick] [--json F] [--minutes 9] [--wheels DIR] [--device cuda]`. The exit status is 0 if
every bound holds, 1 if one does not or something failed, and 3 on a machine without a GPU. `--device cpu --quick` runs
every part in a tiny size; its figures mean nothing. `benchmarks/gpu/README.md` says what has to be installed.
"""

import argparse
import platform
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

_NO_GPU: Final = 3
_TRIES: Final = 5
_VERSIONS: Final = ("torch", "transformers", "sentence-transformers", "numpy", "accelerate", "peft", "faiss-gpu")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything works, no figures")
    parser.add_argument("--json", type=Path, help="written after each measurement")
    parser.add_argument("--minutes", type=float, default=9.0, help="the run ends after so long")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels for what is not installed")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu with --quick")
    options = parser.parse_args(arguments)
    if options.device == "cpu" and not options.quick:
        parser.error("on a CPU there is only --quick: its figures mean nothing")
    with tempfile.TemporaryDirectory(prefix="nearline-gpu-") as temporary:
        try:
            return _begin(options, Path(temporary))
        except ModuleNotFoundError as error:  # what only one part needs is noted where that part fails
            print(
                f"the module {error.name} is missing, and every part needs it; give a folder with its wheel, "
                "--wheels DIR (benchmarks/gpu/README.md names the wheels)",
                file=sys.stderr,
            )
            return 1


def _begin(options: argparse.Namespace, folder: Path) -> int:
    if options.wheels is not None:
        from benchmarks.gpu.wheels import use_wheels

        use_wheels(options.wheels, folder)
    import torch

    if options.device != "cpu" and not torch.cuda.is_available():
        print("no NVIDIA GPU is here, or torch sees none; nothing was measured", file=sys.stderr)
        return _NO_GPU
    return _measure(options, folder)


def _measure(options: argparse.Namespace, folder: Path) -> int:
    from benchmarks.gpu.device import Device
    from benchmarks.gpu.parts import all_parts
    from benchmarks.gpu.run import Run
    from benchmarks.gpu.sizes import FULL, QUICK

    sizes = QUICK if options.quick else FULL
    device = Device(options.device, sizes)
    about = {"device": device.describe(), "quick": options.quick, "minutes": options.minutes, "versions": _versions()}
    print(f"device: {about['device']}; {about['versions']}", flush=True)
    run = Run(device, sizes, folder, about=about, json_path=options.json, minutes=options.minutes)
    run.at_exit(lambda: _remove(folder))
    run.parts(all_parts(run))
    return run.finish()


def _remove(folder: Path) -> None:
    """Other threads may still write into it."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break


def _versions() -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


if __name__ == "__main__":
    raise SystemExit(main())
