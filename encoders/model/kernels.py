"""The kernels of `kernels.cpp`: what happens between a layer's matrix products on a CPU, as machine code.

They are compiled for this processor when a model is loaded, which takes two seconds; no compiled file is kept. They are
for laptops: machines of a cluster have no compiler, and need none. Owns the compiler and the calls into the library.
Knows no weights.

Shapes: T tokens of a packed batch, H the model's size, I the size of the MLP, N heads of queries, K heads of keys and
of values, D size of a head, C = D / 2 pairs, P tokens of a prefix, X = N + 2 K, Y = N D.
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
_PROJECT: Final = Path(__file__).parents[2]
_FLAGS: Final = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-shared", "-fPIC")
COMPILER: Final = "g++"
"""The kernels use GCC's vector extensions: clang has no `__builtin_shuffle`."""
_SUFFIXES: Final = {torch.float32: "fp32", torch.bfloat16: "bf16"}
_LONGEST: Final = 4_096
"""Keys and values of longer prompts do not fit the processor's caches; torch's own attention takes them in pieces."""


class Heads(NamedTuple):
    """The heads of queries of one layer."""

    layer: int
    num: int
    scale: float
    """Factor on a query's products with keys."""


class Kernels:
    """One for each process; see `load_kernels`. Tensors are contiguous, in float32 or bf16."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._lanes = int(library.lanes())

    def fit_rows(self, size: int) -> bool:
        """True if `rms_norm` and `swiglu` can take rows with this many numbers."""
        return size % self._lanes == 0

    def fit_heads(self, size: int) -> bool:
        return size % (2 * self._lanes) == 0

    def fit_prompts(self, packing: Packing) -> bool:
        return packing.kept_kv is None and packing.longest + packing.prefix_tokens <= _LONGEST

    def rms_norm(self, hidden_TH: Tensor, eps: float) -> Tensor:
        """See `ElementwiseOps`."""
        normed_TH = torch.empty_like(hidden_TH)
        self._call("rms_norm", hidden_TH, normed_TH, *hidden_TH.shape, ctypes.c_float(eps))
        return normed_TH

    def swiglu(self, gate_up_T2I: Tensor) -> Tensor:
        """(T, I)"""
        rows, twice = gate_up_T2I.shape
        out_TI = gate_up_T2I.new_empty(rows, twice // 2)
        self._call("swiglu", gate_up_T2I, out_TI, rows, twice // 2)
        return out_TI

    def attend(self, qkv_TXD: Tensor, rotary_T1C: Tensor, packing: Packing, heads: Heads) -> Tensor:
        """(T, Y). Queries and keys are not rotated yet; the complex `rotary_T1C` says by which angles."""
        rows, num_heads, size = qkv_TXD.shape
        prefix = (None, None) if packing.prefix is None else packing.prefix[heads.layer]
        shape = heads.num, (num_heads - heads.num) // 2, size, ctypes.c_float(heads.scale)
        lengths = packing.all_lengths, len(packing.all_lengths)
        out_TY = qkv_TXD.new_empty(rows, heads.num * size)
        self._call("attend", qkv_TXD, rotary_T1C, *lengths, *prefix, packing.prefix_tokens, *shape, out_TY)
        return out_TY

    def _call(self, name: str, first: Tensor, *others: Any) -> None:
        function = getattr(self._library, f"{name}_{_SUFFIXES[first.dtype]}")
        function(*map(_c_argument, (first, *others)))


def _c_argument(value: Any) -> Any:
    """A tensor becomes a pointer to its first number, and an integer an int64_t."""
    if value is None or isinstance(value, ctypes.c_float):
        return value
    if isinstance(value, Tensor):
        assert value.is_contiguous()
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_int64(value)


@cache
def load_kernels() -> Kernels:
    """Raises EncodingFailed where there is no compiler, or it fails."""
    return Kernels(_compile_library())


def _compile_library() -> ctypes.CDLL:
    """The functions of `kernels.cpp`, loaded into the process. Raises EncodingFailed."""
    compiler = _compiler()
    with tempfile.TemporaryDirectory(prefix="nearline-kernels-") as folder:
        library = Path(folder) / "kernels.so"
        command = [*compiler, *_FLAGS, "-o", str(library), str(_SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            message = done.stderr.strip().partition("\n")[0]
            file = _SOURCE.relative_to(_PROJECT)
            raise EncodingFailed(f"{compiler[0]} cannot compile {file}: {message}; set compile = false")
        try:
            return ctypes.CDLL(str(library))
        except OSError as error:
            raise EncodingFailed(
                f"the compiled kernels cannot be loaded: {error}; if no program may run from that folder (noexec), set "
                "TMPDIR to one where it may, or compile = false"
            ) from error


def _compiler() -> list[str]:
    """The command in $CXX, which make reads too, or g++."""
    command = shlex.split(os.environ.get("CXX", "")) or [COMPILER]
    if shutil.which(command[0]) is None:
        raise EncodingFailed(
            "compile = true needs a C++ compiler on a CPU, and there is none; install g++, or set compile = false"
        )
    return command
