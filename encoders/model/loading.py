"""Reads a LLaMA from a folder: its configuration, its weights from safetensors, and the device it goes to.

Owns what is accepted as a model. Runs no code of the folder and reads no pickle.
"""

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from encoders.errors import BadPackage
from encoders.model.attention import ATTENTION
from encoders.model.device_memory import device_failure, device_memory, is_out_of_memory
from encoders.model.layers import use_packed_layers
from encoders.model.llama import LlamaConfig, LlamaModel, LlamaRotaryEmbedding
from encoders.package.manifest import Manifest
from encoders.package.model_package import CONFIG_FILE, WEIGHTS_FILE

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_model(folder: Path, manifest: Manifest, device: torch.device, *, compiled: bool = False) -> LlamaModel:
    """A package's model with packed layers, for inference. Raises BadPackage; DeviceFull if the device has no memory
    for it now; EncodingFailed if it is to be compiled and cannot be."""
    try:
        return _load_model(folder, manifest, device, compiled=compiled)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failure = device_failure(error, device)
    # Now nothing holds the weights that were read, as the frames of the error did.
    device_memory(device).release()
    raise failure


def _load_model(folder: Path, manifest: Manifest, device: torch.device, *, compiled: bool) -> LlamaModel:
    config = read_config(folder)
    if max(manifest.dimensions) != config.hidden_size:
        raise BadPackage(f"{folder}: the largest of dimensions is not the model's size {config.hidden_size}")
    weights = read_weights(folder / WEIGHTS_FILE, device)
    if wrong := [name for name, weight in weights.items() if weight.dtype != DTYPES[manifest.precision]]:
        raise BadPackage(f"{folder}: {wrong[0]} is {weights[wrong[0]].dtype}, not {manifest.precision}")
    model = build_model(config, weights, device)
    # Now only the model holds the weights, so a layer's weights are freed as soon as its packed layer is made.
    weights.clear()
    use_packed_layers(model, compiled=compiled)
    return model


def read_weights(file: Path, device: torch.device) -> dict[str, Tensor]:
    """Raises BadPackage."""
    try:
        return load_file(file, device=str(device))
    except (OSError, SafetensorError) as error:
        raise BadPackage(f"{file} holds no readable safetensors: {error}") from error


def read_config(folder: Path) -> LlamaConfig:
    """Raises BadPackage."""
    try:
        fields = json.loads((folder / CONFIG_FILE).read_bytes())
        if fields.get("model_type") != "llama":
            raise BadPackage(f"{folder} holds a model of type {fields.get('model_type')}; only llama is read")
        _refuse_positions_of_batch(folder, fields)
        return LlamaConfig(**fields)
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise BadPackage(f"{folder}: {CONFIG_FILE} cannot be read: {error}") from error


def _refuse_positions_of_batch(folder: Path, fields: dict[str, Any]) -> None:
    """These kinds of RoPE take other angles when the longest text of a batch is long. Raises BadPackage."""
    for name in ("rope_parameters", "rope_scaling"):
        scaling = fields.get(name) or {}
        kind = str(scaling.get("rope_type", scaling.get("type")))
        if "dynamic" in kind or kind == "longrope":
            raise BadPackage(
                f"{folder}: {CONFIG_FILE} scales positions by {kind}, with which a vector depends on the other texts "
                "of its batch; give a model with another rope_type, such as llama3 or yarn"
            )


def build_model(config: LlamaConfig, weights: dict[str, Tensor], device: torch.device) -> LlamaModel:
    """A stock LLaMA with packed attention. Its parameters are the tensors of `weights`, not copies. Raises BadPackage
    if the weights do not fit the configuration."""
    config._attn_implementation = ATTENTION
    with torch.device("meta"):
        model: LlamaModel = LlamaModel(config)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise BadPackage(f"the weights do not fit {CONFIG_FILE}: {error}") from error
    model.rotary_emb = LlamaRotaryEmbedding(config).to(device)  # its buffers are computed, not stored
    model.requires_grad_(False)
    model.train(False)
    return model


def choose_device(name: str) -> torch.device:
    """`auto`: a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
