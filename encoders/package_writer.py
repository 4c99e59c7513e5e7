"""Writes a model package: weights, tokenizer, the files of sentence-transformers, and nearline.json last.

The folder appears whole or not at all, and an existing one is never overwritten. Owns the layout that is written; what
a valid package is stands in `package.model_package`.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from msgspec.structs import replace
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from encoders.encoder import Encoder
from encoders.errors import BadPackage, PackageExists, Unencodable
from encoders.model.llama import LlamaModel
from encoders.model.loading import DTYPES
from encoders.package.manifest import MANIFEST_FILE, Golden, Manifest, render_manifest
from encoders.package.model_package import (
    CONFIG_FILE,
    MODULES,
    MODULES_FILE,
    WEIGHTS_FILE,
    ModelPackage,
    file_digest,
    list_files,
)

_MOST_PARAMETERS_ON_CPU: Final = 4_000_000_000
"""A larger model needs more memory and time on a CPU than anybody expects of what is, for them, a copy."""
_POOLING: Final = {"mean": "mean", "last": "lasttoken"}
GOLDEN_TEXTS: Final = (
    "A short text.",
    "nearline turns a live stream of posts and member activity into vectors that can be searched seconds later.",
    "Zahlen 1 2 3, Umlaute äöü, 漢字 and a <|nearline:text|> that is only text",
)


def write_package(
    folder: Path,
    manifest: Manifest,
    model: LlamaModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    golden_texts: Sequence[str] = GOLDEN_TEXTS,
) -> ModelPackage:
    """`manifest` comes without files and goldens, which are made here. The weights are saved in its precision.

    The tokenizer must have the manifest's special tokens, and the model an embedding for each of the tokenizer's
    tokens. Raises PackageError.
    """
    if folder.exists():
        raise PackageExists(f"{folder} is there already; a package is never overwritten, choose another folder")
    device = _goldens_device(model)
    with _renamed_when_complete(folder) as partial:
        _write_tokenizer(partial, manifest, tokenizer)
        _write_model(partial, manifest, model)
        _write_sentence_transformers(partial, manifest)
        manifest = replace(manifest, files={name: file_digest(partial / name) for name in list_files(partial)})
        _write_manifest(partial, manifest)
        _write_manifest(partial, replace(manifest, goldens=_goldens(partial, golden_texts, device)))
        ModelPackage.read(partial).check_layout()
    return ModelPackage.read(folder)  # its files have been hashed when they were written


@contextmanager
def _renamed_when_complete(folder: Path) -> Iterator[Path]:
    """A temporary folder beside the final one; it gets the final name only if nothing failed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield partial
        _make_readable(partial)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _make_readable(folder: Path) -> None:
    """Readable for other users too: temporary folders and safetensors files are made for their owner alone."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _goldens_device(model: LlamaModel) -> str:
    """A small model's goldens are the same wherever they are made. Raises BadPackage."""
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if num_parameters <= _MOST_PARAMETERS_ON_CPU:
        return "cpu"
    if not torch.cuda.is_available():
        raise BadPackage(
            f"a model of {num_parameters / 1e9:.1f} billion parameters becomes a package only on a machine with a GPU, "
            "where its golden vectors are encoded; call this again on one"
        )
    return "cuda"


def _goldens(folder: Path, texts: Sequence[str], device: str) -> list[Golden]:
    encoder = Encoder.unchecked(ModelPackage.read(folder), device=device)
    goldens = []
    for text, vector in zip(texts, encoder.encode_texts(texts), strict=True):
        if isinstance(vector, Unencodable):
            raise BadPackage(f"the golden text {text[:40]!r} cannot be encoded: {vector.cause}")
        goldens.append(Golden(text, vector.astype("<f4").tobytes()))
    return goldens


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_FILE).write_bytes(render_manifest(manifest))


def _write_tokenizer(folder: Path, manifest: Manifest, tokenizer: PreTrainedTokenizerFast) -> None:
    """Written so that sentence-transformers pads on the right and cuts at the longer of the two token limits."""
    missing = [token for token in manifest.special_tokens.values() if token not in tokenizer.get_vocab()]
    if missing or tokenizer.pad_token is None:
        raise BadPackage(f"the tokenizer lacks {', '.join(missing) or 'a padding token'}; add it and an embedding")
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    tokenizer.model_max_length = max(manifest.token_limits.post, manifest.token_limits.member)
    tokenizer.save_pretrained(str(folder))


def _write_model(folder: Path, manifest: Manifest, model: LlamaModel) -> None:
    config = model.config.to_dict()
    dtype = DTYPES[manifest.precision]
    config |= {"architectures": ["LlamaModel"], "dtype": str(dtype).removeprefix("torch."), "use_cache": False}
    _write_json(folder / CONFIG_FILE, config)
    weights = {name: weight.detach().to("cpu", dtype).contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def _write_sentence_transformers(folder: Path, manifest: Manifest) -> None:
    """The files that sentence-transformers 6.2 would write itself; a test compares them."""
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": kind} for index, (path, kind) in enumerate(MODULES)
    ]
    versions = {
        "pytorch": version("torch"),
        "sentence_transformers": version("sentence-transformers"),
        "transformers": version("transformers"),
    }
    token_vectors, text_vector = "token_embeddings", "sentence_embedding"
    method = {"method": "forward", "method_output_name": "last_hidden_state"}
    files: dict[str, Any] = {
        MODULES_FILE: modules,
        "config_sentence_transformers.json": {
            "__version__": versions,
            "default_prompt_name": None,
            "model_type": "SentenceTransformer",
            "prompts": {"document": "", "query": ""},
            "similarity_fn_name": "cosine",
        },
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": method},
            "module_output_name": token_vectors,
        },
        "1_Pooling/config.json": {
            "embedding_dimension": max(manifest.dimensions),
            "pooling_mode": _POOLING[manifest.pooling],
            "include_prompt": True,
        },
        "2_Normalize/config.json": {"module_input_name": text_vector, "module_output_name": text_vector},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        _write_json(folder / name, content)


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")
