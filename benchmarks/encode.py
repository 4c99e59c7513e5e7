"""The encoder on a CPU, compared with what a user would otherwise pick and with the floor: its matrix products alone.

`python -m benchmarks.encode [--events F] [--hidden N…] [--json F]`. All variants run in turns, on the same
texts and the same random weights, with two threads each. The encoder runs with its default setting (`compile = false`)
and, where there is a C++ compiler, with its kernels too (`compile = true`); each has bounds of its own. The vectors of
all texts are compared with fp64, which takes longest.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch

from benchmarks.kit.matmul_floor import floor_s
from benchmarks.kit.other_encoders import auto_model, one_by_one, sentence_transformers
from benchmarks.kit.packages import DIMENSION, layout, random_package, texts
from benchmarks.kit.table import Figure, report
from encoders.encoder import Encoder
from encoders.model.kernels import COMPILER
from encoders.model.llama import LlamaConfig, LlamaModel
from encoders.model.loading import DTYPES, read_config
from encoders.package.manifest import Precision
from schemas.embeddings import Vector

THREADS: Final = 2
PREFIXES: Final = (32, 150)
_PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "bf16")
_KERNELS: Final = " with kernels"
_STOCK: Final = "sentence-transformers"
_FLOOR: Final = "floor"
_TURNS: Final = 5
_MAIN: Final = 256
"""The hidden size that has all bounds."""
_OF_POSSIBLE: Final = 0.97
"""The share that sharing a prefix must gain of what the products that it saves allow."""
_BF16_AFTER_INSTRUCTION: Final = {"": 2.5, _KERNELS: 3.5}
"""Times sentence-transformers in fp32. The kernels gained 1.4 when they came."""

Packages = dict[Precision, Path]
Runs = dict[str, Callable[[], float]]
"""Each run by its name; it returns the seconds that it took."""


class Bounds(NamedTuple):
    """In fp32 and bf16; None: no bound."""

    shares: tuple[float | None, float | None]
    """Of the floor."""
    ratios: tuple[float | None, float | None]
    """To sentence-transformers."""


class Size(NamedTuple):
    hidden: int
    layers: int
    num_texts: int
    default: Bounds
    with_kernels: Bounds


SIZES: Final = (
    Size(128, 4, 2_000, Bounds((None, None), (1.3, None)), Bounds((None, None), (1.5, None))),
    Size(256, 6, 2_000, Bounds((0.65, 0.39), (1.3, 1.2)), Bounds((0.75, 0.55), (1.5, 1.7))),
    Size(768, 12, 160, Bounds((0.69, 0.60), (None, None)), Bounds((0.80, 0.65), (None, None))),
)
"""The bounds of the default setting are those with kernels, less what the kernels gained when they came: 1.15 in fp32
and 1.4 in bf16 at 256; at 768 in bf16 what was measured without them."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=Path)
    parser.add_argument("--texts", type=int, help="of each size, for a quick look")
    parser.add_argument("--hidden", type=int, nargs="*", default=[size.hidden for size in SIZES], help="sizes")
    parser.add_argument("--sizes-only", action="store_true", help="neither prefixes nor memory")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    corpus = _corpus(arguments.events)
    if arguments.memory:
        return _use_memory(corpus, arguments.memory)
    print(f"processor: {_processor()}; torch {torch.__version__}; {THREADS} threads", flush=True)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as temporary:
        for size in (size for size in SIZES if size.hidden in arguments.hidden):
            sample = corpus[: arguments.texts or size.num_texts]
            size_figures = _compare(Path(temporary) / f"h{size.hidden}", size, sample)
            report(size_figures)
            figures += size_figures
        if not arguments.sizes_only:
            figures += _prefixes(Path(temporary), corpus[: arguments.texts or 1_000])
            figures += _memory(arguments.events)
    return report(figures, arguments.json)


def _corpus(events: Path | None) -> list[str]:
    """All different: the encoder computes equal texts of a call once, and the others would compute each."""
    corpus = list(dict.fromkeys(texts(events)))
    random.Random(1).shuffle(corpus)
    return corpus


def _compare(folder: Path, size: Size, sample: Sequence[str]) -> list[Figure]:
    """One size in both precisions, compared with the floor and the rivals."""
    print(f"hidden {size.hidden} x {size.layers}, {len(sample)} texts", flush=True)
    name = f"h{size.hidden}"
    packages = {p: random_package(folder / p, layout(size.hidden, size.layers), precision=p) for p in _PRECISIONS}
    encoders = {
        (precision, variant): Encoder.load(package, device="cpu", threads=THREADS, compiled=variant == _KERNELS)
        for precision, package in packages.items()
        for variant in _variants()
    }
    prompts = encoders["fp32", ""].prompts(sample)
    taken = _by_turns(_runs(packages, encoders, sample))
    tokens = sum(map(len, prompts))
    figures = [Figure(f"{name}: {run}, tokens/s", tokens / statistics.median(s)) for run, s in taken.items()]
    figures += _ratios(size, taken)
    for precision, package in packages.items():
        truth = one_by_one(package, prompts, DIMENSION, torch.float64)
        figures += [_worst(f"{name}{v}", encoders[precision, v], precision, sample, truth) for v in _variants()]
    for variant in _variants():
        outside = statistics.median(_outside(encoders["fp32", variant], sample) for _ in range(_TURNS))
        label = f"{name}: share of the time outside the model, fp32{variant}, median"
        figures.append(Figure(label, outside, 0.05 if size.hidden == _MAIN else None, "at_most"))
    return figures


def _ratios(size: Size, taken: Mapping[str, Sequence[float]]) -> list[Figure]:
    """To the floor and to sentence-transformers: of each variant the same rows. `taken`: the seconds of each run."""
    name, figures = f"h{size.hidden}", list[Figure]()
    for variant in _variants():
        bounds = size.with_kernels if variant == _KERNELS else size.default
        for number, precision in enumerate(_PRECISIONS):
            seconds, label = taken[f"nearline {precision}{variant}"], f"{precision}{variant}"
            of_floor, of_stock = (_ratio(taken[f"{rival} {precision}"], seconds) for rival in (_FLOOR, _STOCK))
            figures += [
                Figure(f"{name}: share of the floor, {label}", of_floor, bounds.shares[number]),
                Figure(f"{name}: / sentence-transformers, {label}", of_stock, bounds.ratios[number]),
            ]
        mixed = _ratio(taken[f"{_STOCK} fp32"], taken[f"nearline bf16{variant}"])
        bound = 2.5 if size.hidden == _MAIN else None
        figures.append(Figure(f"{name}: bf16{variant} / sentence-transformers fp32", mixed, bound))
    return figures


def _runs(packages: Packages, encoders: dict[tuple[Precision, str], Encoder], sample: Sequence[str]) -> Runs:
    """The encoder, the rivals and the floor."""
    runs: Runs = {}
    rendered = [_render(text) for text in sample]
    lengths = [len(prompt) for prompt in encoders["fp32", ""].prompts(sample)]
    for precision, package in packages.items():
        for variant in _variants():
            runs[f"nearline {precision}{variant}"] = _timed(partial(_encode_all, encoders[precision, variant], sample))
        runs[f"{_STOCK} {precision}"] = _timed(partial(sentence_transformers(package, THREADS), rendered))
        runs[f"{_FLOOR} {precision}"] = partial(floor_s, read_config(package), lengths, DTYPES[precision], THREADS)
    few = rendered[: max(1, len(rendered) // 10)]
    loop_s = _timed(partial(auto_model(packages["fp32"], THREADS), few))
    runs["AutoModel loop fp32"] = lambda: loop_s() * len(rendered) / len(few)
    return runs


def _variants() -> list[str]:
    """Variants of the encoder; the quickest comes last."""
    return ["", _KERNELS] if shutil.which(COMPILER) else [""]


def _prefixes(folder: Path, sample: Sequence[str]) -> list[Figure]:
    """Hidden 256: an instruction before each text, with and without sharing it."""
    figures = []
    for length in PREFIXES:
        print(f"an instruction of {length} tokens, {len(sample)} texts", flush=True)
        instruction = _instruction(folder, length)
        packages: Packages = {
            precision: random_package(
                folder / f"{length}-{precision}", layout(256, 6), precision=precision, instruction=instruction
            )
            for precision in _PRECISIONS
        }
        encoders = {
            (precision, variant): Encoder.load(package, device="cpu", threads=THREADS, compiled=variant == _KERNELS)
            for precision, package in packages.items()
            for variant in _variants()
        }
        runs: Runs = {}
        for variant in _variants():
            shared, bf16 = encoders["fp32", variant], encoders["bf16", variant]
            runs[f"shared{variant}"] = _timed(partial(_encode_all, shared, sample))
            runs[f"whole{variant}"] = _timed(partial(_encode_all, shared, sample, share=False))
            runs[f"bf16{variant}"] = _timed(partial(_encode_all, bf16, sample))
        if length == PREFIXES[0]:
            rendered = [_render(text, instruction) for text in sample]
            runs[_STOCK] = _timed(partial(sentence_transformers(packages["fp32"], THREADS), rendered))
        taken = _by_turns(runs)
        prompts = encoders["fp32", ""].prompts(sample)
        lengths, config = [len(prompt) for prompt in prompts], read_config(packages["fp32"])
        of_tokens = sum(lengths) / (sum(lengths) - length * len(lengths))
        possible = _multiplications(config, lengths) / _multiplications(config, lengths, shared=length)
        figures.append(Figure(f"instruction of {length}: tokens without sharing / with", of_tokens))
        figures.append(Figure(f"instruction of {length}: multiplications without sharing / with", possible))
        for variant in _variants():
            name = f"instruction of {length}{variant}"
            gained = _ratio(taken[f"whole{variant}"], taken[f"shared{variant}"])
            figures.append(Figure(f"{name}: sharing / not, texts/s", gained, _OF_POSSIBLE * possible))
            if _STOCK in taken:
                ratio = _ratio(taken[_STOCK], taken[f"bf16{variant}"])
                label = f"{name}: bf16 / sentence-transformers fp32"
                figures.append(Figure(label, ratio, _BF16_AFTER_INSTRUCTION[variant]))
        for precision, package in packages.items():
            truth = one_by_one(package, prompts, DIMENSION, torch.float64)
            for variant in _variants():
                name, encoder = f"instruction of {length}{variant}", encoders[precision, variant]
                figures.append(_worst(name, encoder, precision, sample, truth))
    return figures


def _multiplications(config: LlamaConfig, lengths: Sequence[int], shared: int = 0) -> int:
    """Of the matrix products of prompts with these lengths, whose first `shared` tokens are computed already. Attention
    to these tokens is not saved, so sharing gains less than their number says."""
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    per_token = config.hidden_size * (2 * queries + 2 * keys + 3 * config.intermediate_size)
    pairs = sum(length * (length + 1) - shared * (shared + 1) for length in lengths) // 2
    return config.num_hidden_layers * (per_token * sum(length - shared for length in lengths) + 2 * queries * pairs)


def _timed(run: Callable[[], object]) -> Callable[[], float]:
    def seconds() -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    return seconds


def _by_turns(runs: Runs) -> dict[str, list[float]]:
    """The seconds of each turn. The runs take turns, so that a slow while of the machine hits all of them."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_TURNS):
        for name, run in runs.items():
            taken[name].append(run())
    for name, seconds in taken.items():
        print(f"  {name}: " + ", ".join(f"{turn_s:.1f} s" for turn_s in seconds), flush=True)
    return taken


def _ratio(slow: Sequence[float], quick: Sequence[float]) -> float:
    """The median of the turns' ratios."""
    return statistics.median(slow_s / quick_s for slow_s, quick_s in zip(slow, quick, strict=True))


def _encode_all(encoder: Encoder, sample: Sequence[str], *, share: bool = True) -> object:
    torch.set_num_threads(1)
    return encoder.encode_texts(sample, share_prefix=share)


def _outside(encoder: Encoder, sample: Sequence[str]) -> float:
    """The share of the wall time in which no thread is in the model: rendering, packing, pooling, copies, waiting."""
    forward = encoder._model.forward
    model, spans_s = forward.model, list[float]()

    def timed(**inputs: Any) -> Any:
        began = time.perf_counter()
        outputs = model(**inputs)
        spans_s.append(time.perf_counter() - began)
        return outputs

    forward.model = cast(LlamaModel, timed)
    try:
        began = time.perf_counter()
        _encode_all(encoder, sample)
        wall_s = time.perf_counter() - began
    finally:
        forward.model = model
    return 1 - sum(spans_s) / THREADS / wall_s


def _worst(name: str, encoder: Encoder, precision: Precision, sample: Sequence[str], truth: Vector) -> Figure:
    """The worst distance of all texts to fp64."""
    vectors = np.stack([np.asarray(vector, np.float64) for vector in encoder.encode_texts(sample)])
    worst = float((1 - (truth * vectors).sum(1)).max())
    bound = 1e-6 if precision == "fp32" else 3e-3
    return Figure(f"{name}: 1 - cosine to fp64, worst text, {precision}", worst, bound, "at_most")


def _render(text: str, instruction: str = "") -> str:
    """The text of a prompt, with the special tokens as the demo's tokenizer names them."""
    begin = f"<|nearline:instruction|>{instruction}" if instruction else ""
    return f"{begin}<|nearline:text|>{text}"


def _instruction(folder: Path, length: int) -> str:
    """Words that make a prefix of `length` tokens, with the special tokens around them."""
    package = random_package(folder / f"words-{length}", layout(128, 1))
    encoder = Encoder.load(package, device="cpu")
    words = ["find"]
    while len(encoder.prompts([" ".join(words)])[0]) < length - 1:
        words.append(("posts", "that", "a", "member", "would", "read")[len(words) % 6])
    return " ".join(words)


def _memory(events: Path | None) -> list[Figure]:
    """Measured in processes of their own that encode so many texts."""
    few, many = (_peak(events, number) for number in (2_000, 20_000))
    return [
        Figure("peak memory over 2,000 texts, MB", few / 1e6),
        Figure("peak memory, 20,000 texts / 2,000", many / few, 1.1, "at_most"),
    ]


def _peak(events: Path | None, number: int) -> float:
    command = [sys.executable, "-m", "benchmarks.encode", "--memory", str(number)]
    command += ["--events", str(events)] if events else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _use_memory(corpus: Sequence[str], number: int) -> int:
    """Encodes as the stage does, in batches of its size; prints the peak of the resident memory in bytes. It is not
    taken from `getrusage`, which would give the parent's peak where that was larger."""
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as temporary:
        encoder = Encoder.load(random_package(Path(temporary) / "p", layout(128, 4)), device="cpu", threads=THREADS)
        for start in range(0, number, 512):
            encoder.encode_texts([corpus[place % len(corpus)] for place in range(start, min(start + 512, number))])
    lines = Path("/proc/self/status").read_text().splitlines()
    print(1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
    return 0


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    flags = next((line for line in lines if line.startswith("flags")), "")
    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag}" in flags]
    return f"{model} ({', '.join(wide)})"


if __name__ == "__main__":
    raise SystemExit(main())
