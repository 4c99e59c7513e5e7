"""The steps between a layer's matrix products as machine code: `kernels.cpp`, compiled for this processor when a model
is loaded.

Compiling takes two seconds; nothing of it is kept. Shapes: T tokens of a packed batch, H the model's size, I the size
within, N heads, K heads of keys and values, D size of a head, P tokens of a prefix.
"""

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from encoders.errors import EncodingFailed
from encoders.model.attention import Packing

_SOURCE: Final = Path(__file__).with_name("kernels.cpp")
_FLAGS: Final = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-shared", "-fPIC")
COMPILER: Final = "g++"
"""The kernels use its vectors: clang has no `__builtin_shuffle`."""
_NAMES: Final = {torch.float32: "fp32", torch.bfloat16: "bf16"}
_LONGEST: Final = 4_096
"""Keys and values of longer prompts leave the caches; torch's own attention takes them in pieces."""


class Heads(NamedTuple):
    """Of queries, in a layer."""

    layer: int
    num: int
    scale: float
    """Of a query's products with keys."""


class Kernels:
    """One for each process; see `load_kernels`. Inputs are contiguous, in float32 or bf16."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._lanes = int(library.lanes())

    def fit_rows(self, size: int) -> bool:
        """Whether rows of so many numbers can be normed and gated."""
        return size % self._lanes == 0

    def fit_heads(self, size: int) -> bool:
        return size % (2 * self._lanes) == 0

    def fit_prompts(self, packing: Packing) -> bool:
        return packing.layers is None and packing.longest + packing.prefix_tokens <= _LONGEST

    def normed(self, hidden_TH: Tensor, eps: float) -> Tensor:
        """See `Steps`."""
        found_TH = torch.empty_like(hidden_TH)
        self._run("norm", hidden_TH, found_TH, *hidden_TH.shape, ctypes.c_float(eps))
        return found_TH

    def gated(self, gate_up_T2I: Tensor) -> Tensor:
        """With SiLU."""
        rows, both = gate_up_T2I.shape
        found_TI = gate_up_T2I.new_empty(rows, both // 2)
        self._run("gate", gate_up_T2I, found_TI, rows, both // 2)
        return found_TI

    def attended(self, qkv_TXD: Tensor, turns_T1C: Tensor, packing: Packing, heads: Heads) -> Tensor:
        """(T, N + 2 K, D) of queries, keys and values not yet turned -> (T, N D)."""
        rows, sides, size = qkv_TXD.shape
        prefix = (None, None) if packing.prefix is None else packing.prefix[heads.layer]
        shape = heads.num, (sides - heads.num) // 2, size, ctypes.c_float(heads.scale)
        texts = packing.texts, len(packing.texts)
        found_TX = qkv_TXD.new_empty(rows, heads.num * size)
        self._run("attend", qkv_TXD, turns_T1C, *texts, *prefix, packing.prefix_tokens, *shape, found_TX)
        return found_TX

    def _run(self, name: str, numbers: Tensor, *others: Any) -> None:
        kernel = getattr(self._library, f"{name}_{_NAMES[numbers.dtype]}")
        kernel(*(argument(one) for one in (numbers, *others)))


def argument(given: Any) -> Any:
    if given is None or isinstance(given, ctypes.c_float):
        return given
    if isinstance(given, Tensor):
        assert given.is_contiguous()
        return ctypes.c_void_p(given.data_ptr())
    return ctypes.c_int64(given)


@cache
def load_kernels() -> Kernels:
    """Raises EncodingFailed where there is no compiler, or it fails."""
    return Kernels(compiled(_SOURCE))


def compiled(source: Path) -> ctypes.CDLL:
    """What the file's functions are in memory. Raises EncodingFailed."""
    compiler = _compiler()
    with tempfile.TemporaryDirectory(prefix="nearline-kernels-") as folder:
        library = Path(folder) / "kernels.so"
        command = [*compiler, *_FLAGS, "-I", str(_SOURCE.parent), "-o", str(library), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            first = done.stderr.strip().partition("\n")[0]
            file = f"{source.parent.name}/{source.name}"
            raise EncodingFailed(f"{compiler[0]} cannot compile {file}: {first}; set compile = false")
        return ctypes.CDLL(str(library))


def _compiler() -> list[str]:
    """$CXX, as make takes it, or g++."""
    found = shlex.split(os.environ.get("CXX", "")) or [COMPILER]
    if shutil.which(found[0]) is None:
        raise EncodingFailed(
            "compile = true needs a C++ compiler on a CPU, and there is none; install g++, or set compile = false"
        )
    return found
