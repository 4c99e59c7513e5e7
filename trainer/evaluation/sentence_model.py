"""A baseline that others have trained: a folder of sentence-transformers. Opening it must run none of its code.

Owns which folders are refused, and how texts become vectors. Knows neither members nor scores. Shapes: T texts, D the
model's dimension.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from encoders.package.manifest import MANIFEST_FILE
from encoders.package.model_package import MODULES_FILE, WEIGHTS_FILE
from trainer.errors import BadBaseline
from trainer.evaluation.package_vectors import Matrix

_MODULES: Final = ("Transformer", "Pooling", "Normalize", "Dense", "StaticEmbedding", "LayerNorm", "Dropout")
"""Of sentence-transformers itself. Its others load classes that their settings name."""
_LIBRARY: Final = "sentence_transformers."
_SAFE_WEIGHTS: Final = (WEIGHTS_FILE, f"{WEIGHTS_FILE}.index.json")
"""Whole, or in several files."""
_PICKLES: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5")


class SentenceModel:
    def __init__(self, folder: Path, *, device: str = "auto") -> None:
        """Raises BadBaseline."""
        refuse_code(folder)
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(
                str(folder.absolute()),
                device=None if device == "auto" else device,
                trust_remote_code=False,
                local_files_only=True,
            )
        except Exception as error:
            # The library raises whatever it stumbles over: any of it means that the folder is no model.
            line = str(error).partition("\n")[0]
            raise BadBaseline(f"{folder} cannot be loaded by sentence-transformers: {line}; mend the folder") from error

    def encode(self, texts: Sequence[str]) -> Matrix:
        """(T, D), of length one. As the library does it, long texts are cut at the model's limit."""
        if not texts:
            return np.zeros((0, self._model.get_embedding_dimension() or 1), dtype=np.float32)
        vectors: Matrix = self._model.encode(
            list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return vectors.astype(np.float32, copy=False)


def refuse_folders(folders: Iterable[Path]) -> None:
    """`refuse_code` for all that are not nearline's own packages, which are checked when they are loaded."""
    for folder in folders:
        if not (folder / MANIFEST_FILE).exists():
            refuse_code(folder)


def refuse_code(folder: Path) -> None:
    """Raises BadBaseline for a folder that is none of sentence-transformers, or would run code when it is opened. Code
    is imported only for a module or a configuration that names it, so files of code alone are no reason."""
    if not (folder / MODULES_FILE).is_file():
        raise BadBaseline(f"{folder} has no {MODULES_FILE}; give a folder that sentence-transformers has saved")
    places = {folder}
    for kind, path in _modules(folder):
        if not kind.startswith(_LIBRARY) or kind.rpartition(".")[2] not in _MODULES:
            raise _would_run(folder, f"the module {kind}")
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise BadBaseline(f"{folder}: {MODULES_FILE} names {path}, which lies elsewhere; mend the folder")
        places.add(folder / path)
        _refuse_pickles(folder, folder / path)
    for file in sorted(file for place in places for file in place.glob("*config*.json")):
        if _names_code(_read(folder, file)):
            raise _would_run(folder, f"a class that {file.relative_to(folder)} names")


def _refuse_pickles(folder: Path, place: Path) -> None:
    """Where the weights are there as safetensors by the name that the library looks for, no pickle is opened. Nor is a
    pickle, or a file of code, where no module lies."""
    if any((place / name).is_file() for name in _SAFE_WEIGHTS):
        return
    for file in sorted(place.glob("*")):
        if file.suffix in _PICKLES:
            raise _would_run(folder, f"the pickled weights {file.relative_to(folder)}")


def _modules(folder: Path) -> Iterator[tuple[str, str]]:
    """The type of each module, and its folder in this one."""
    modules = _read(folder, folder / MODULES_FILE)
    if not isinstance(modules, list) or not modules:
        raise BadBaseline(
            f"{folder}: {MODULES_FILE} names no module; give a folder that sentence-transformers has saved"
        )
    for entry in modules:
        yield (str(entry.get("type")), str(entry.get("path", ""))) if isinstance(entry, dict) else (str(entry), "")


def _names_code(config: Any) -> bool:
    """Whether a configuration makes a loader import a class of the folder's choice."""
    if isinstance(config, list):
        return any(map(_names_code, config))
    if not isinstance(config, dict):
        return False
    activation = config.get("activation_function")
    is_foreign = isinstance(activation, str) and "." in activation and not activation.startswith("torch.nn.")
    return "auto_map" in config or is_foreign or any(map(_names_code, config.values()))


def _read(folder: Path, file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadBaseline(f"{folder}: {file.relative_to(folder)} is not JSON: {error}; mend the folder") from error


def _would_run(folder: Path, what: str) -> BadBaseline:
    return BadBaseline(
        f"{folder} would run code when it is opened ({what}); save it again with safetensors and modules of "
        "sentence-transformers alone"
    )
