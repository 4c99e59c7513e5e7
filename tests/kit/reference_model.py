"""The plain way to make vectors, to compare the encoders with: transformers in fp64, one prompt at a time."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.errors import Unencodable
from encoders.package.manifest import PoolingMode
from encoders.package.model_package import ModelPackage
from schemas.embeddings import Vector


def one_by_one(package: ModelPackage, prompts: Sequence[list[int]], pooling: PoolingMode) -> list[Tensor]:
    """The plain way: transformers' own eager attention in fp64, one prompt at a time."""
    config = LlamaConfig.from_json_file(package.folder / "config.json")
    config._attn_implementation = "eager"
    model = LlamaModel(config).double().eval()
    weights = load_file(package.folder / "model.safetensors")
    model.load_state_dict({name: weight.double() for name, weight in weights.items()})
    vectors = []
    with torch.inference_mode():
        for prompt in prompts:
            hidden = model(input_ids=torch.tensor([prompt]), use_cache=False).last_hidden_state[0]
            pooled = hidden[-1] if pooling == "last" else hidden.mean(0)
            vectors.append(F.normalize(pooled[: package.dimension], dim=-1))
    return vectors


def worst_distance(vectors: Sequence[Vector | Unencodable], reference: Sequence[Tensor]) -> float:
    both = zip(vectors, reference, strict=True)
    return max(abs(1 - float(np.asarray(vector, dtype=np.float64) @ expected.numpy())) for vector, expected in both)
