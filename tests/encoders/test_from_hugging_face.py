import json
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from encoders.encoder import Encoder
from encoders.errors import BadPackage
from encoders.from_hugging_face import Recipe, create_package
from encoders.package.manifest import HISTORY_AGE, MeanForm, MemberVectorsForm, PostTemplate, Templates, TokenLimits
from encoders.package.model_package import ModelPackage
from nearline.commands.package import package as package_command
from tests.kit.data.contexts import history_entry, member_context
from tests.kit.data.events import write_events
from tests.kit.data.training_events import events
from tests.kit.packages import poison, tiny_tokenizer

ROPE = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
LAYOUTS: dict[str, dict[str, Any]] = {
    # Heads, key heads and head size in the proportions of the real ones.
    "3.2-1B": {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True},
    "3.2-3B": {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 96, "tie_word_embeddings": True},
    "3.1-8B": {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": False},
}
LIMITS = TokenLimits(64, 128)


def hub_folder(folder: Path, layout: str = "3.2-1B", *, dtype: str = "bfloat16", shard_size: str = "1GB") -> Path:
    """As Hugging Face has it: LlamaForCausalLM, a tokenizer that puts a begin of text, no padding token."""
    tokenizer = tiny_tokenizer(["<|begin_of_text|>", "<|end_of_text|>"])
    begin = tokenizer.convert_tokens_to_ids("<|begin_of_text|>")
    fast = tokenizer.backend_tokenizer
    fast.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
    )
    plain = PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>", model_max_length=131072
    )
    sizes = {"num_hidden_layers": 2, "intermediate_size": 96, "max_position_embeddings": 4096}
    config = LlamaConfig(
        vocab_size=len(plain),
        rope_theta=500_000.0,
        rope_scaling=ROPE,
        bos_token_id=begin,
        initializer_range=0.1,
        **{"hidden_size": 64, **sizes, **LAYOUTS[layout]},
    )
    torch.manual_seed(3)
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=shard_size)
    plain.save_pretrained(str(folder))
    return folder


def stock_vector(source: Path, text: str, role_row: torch.Tensor) -> np.ndarray[Any, Any]:
    """transformers on the original folder, with the new token's embedding put in by hand."""
    model = LlamaForCausalLM.from_pretrained(source, dtype=torch.float32).model
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
    begin, *ids = tokenizer(text)["input_ids"]
    rows = model.embed_tokens.weight
    embedded = torch.stack([rows[begin], role_row.float(), *(rows[number] for number in ids)]).unsqueeze(0)
    with torch.inference_mode():
        last = model(inputs_embeds=embedded, use_cache=False).last_hidden_state[0, -1]
    return torch.nn.functional.normalize(last, dim=0).numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_hugging_face_folder_becomes_a_package(tmp_path: Path, layout: str) -> None:
    source = hub_folder(tmp_path / "Llama", layout, shard_size="40KB")
    assert len(list(source.glob("*.safetensors"))) > 1
    package = create_package(source, tmp_path / "p", Recipe("llama", token_limits=LIMITS, precision="fp32"))
    encoder = Encoder.load(package.folder, device="cpu")
    rows = load_file(package.folder / "model.safetensors")["embed_tokens.weight"]
    text = PreTrainedTokenizerFast.from_pretrained(package.folder).convert_tokens_to_ids("<|nearline:text|>")
    expected = stock_vector(source, "bread and an oven", rows[text])
    assert encoder.encode_text("bread and an oven") == pytest.approx(expected, abs=1e-5)
    assert encoder.encode_members([member_context(history_entry("bread"), headline="baker")])[0] is not None


def test_precision_is_that_of_the_weights_and_one_file_is_as_good_as_several(tmp_path: Path) -> None:
    single = create_package(hub_folder(tmp_path / "a"), tmp_path / "pa", Recipe("llama", token_limits=LIMITS))
    several = hub_folder(tmp_path / "b", shard_size="40KB")
    other = create_package(several, tmp_path / "pb", Recipe("llama", token_limits=LIMITS))
    plain = create_package(
        hub_folder(tmp_path / "c", dtype="float32"), tmp_path / "pc", Recipe("llama", token_limits=LIMITS)
    )
    assert (single.precision, other.precision, plain.precision) == ("bf16", "bf16", "fp32")
    assert single.manifest.files["model.safetensors"] == other.manifest.files["model.safetensors"]
    assert single.manifest.base_model.sha256 != other.manifest.base_model.sha256


def test_a_recipe_shapes_the_package(tmp_path: Path) -> None:
    recipe = Recipe(
        "llama",
        templates=Templates(PostTemplate(("language", "text"), instruction="Find similar posts")),
        pooling="mean",
        dimension=16,
        token_limits=LIMITS,
        member_form=MeanForm(),
    )
    package = create_package(hub_folder(tmp_path / "a"), tmp_path / "p", recipe)
    assert (package.dimension, package.manifest.dimensions) == (16, (16, 64))
    assert set(package.manifest.special_tokens) == {"language", "text", "instruction"}
    assert Encoder.load(package.folder, device="cpu").encode_text("bread").shape == (16,)


def test_the_known_embeddings_stay_as_they_were(tmp_path: Path) -> None:
    source = hub_folder(tmp_path / "a")
    package = create_package(source, tmp_path / "p", Recipe("llama", token_limits=LIMITS))
    old = load_file(source / "model.safetensors")["model.embed_tokens.weight"]
    new = load_file(package.folder / "model.safetensors")["embed_tokens.weight"]
    assert torch.equal(new[: len(old)], old)
    assert len({row.float().numpy().tobytes() for row in new[len(old) :]}) == len(new) - len(old) > 0


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    source = hub_folder(tmp_path / "a")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(BadPackage, match=r"neither model\.safetensors nor"):
        create_package(source, tmp_path / "p", Recipe("llama"))


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd.safetensors", "weights.bin", "lost.safetensors", 5, ["a"], {}]
)
def test_an_index_cannot_name_what_is_not_in_the_folder(tmp_path: Path, name: object) -> None:
    source = hub_folder(tmp_path / "a")
    (source / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(BadPackage, match=r"no safetensors file of this folder|neither model"):
        create_package(source, tmp_path / "p", Recipe("llama"))


def test_a_pickle_under_the_name_of_safetensors_is_not_read(tmp_path: Path) -> None:
    source = hub_folder(tmp_path / "a")
    pickle.loads(poison(tmp_path / "would-have-run"))
    assert (tmp_path / "would-have-run").exists()
    (source / "model.safetensors").write_bytes(poison(tmp_path / "ran"))
    with pytest.raises(BadPackage, match="no readable safetensors"):
        create_package(source, tmp_path / "p", Recipe("llama"))
    assert not (tmp_path / "ran").exists()


def test_code_beside_the_weights_does_not_run(tmp_path: Path) -> None:
    """What `trust_remote_code` would run."""
    source = hub_folder(tmp_path / "a")
    (source / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: ...\n")
    for file, kind in (("config.json", "AutoModel"), ("tokenizer_config.json", "AutoTokenizer")):
        body = json.loads((source / file).read_bytes())
        (source / file).write_text(json.dumps({**body, "auto_map": {kind: "evil.Evil"}}))
    with suppress(BadPackage):
        create_package(source, tmp_path / "p", Recipe("llama", token_limits=LIMITS))
    assert not (tmp_path / "ran").exists()


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    source = hub_folder(tmp_path / "a")
    config = (source / "config.json").read_text().replace('"model_type": "llama"', '"model_type": "qwen2"')
    (source / "config.json").write_text(config)
    with pytest.raises(BadPackage, match="only llama is read"):
        create_package(source, tmp_path / "p", Recipe("llama"))


def test_the_command_makes_and_checks(tmp_path: Path) -> None:
    source = hub_folder(tmp_path / "Tiny Llama_3")
    out = str(tmp_path / "p")
    options = ["--out", out, "--dimension", "16", "--post-tokens", "64", "--member-tokens", "64"]
    created = CliRunner().invoke(package_command, ["create", str(source), *options])
    assert created.output.startswith("tiny-llama-3-"), created.output
    assert CliRunner().invoke(package_command, ["check", out, "--device", "cpu"]).output == created.output


def test_the_command_takes_the_templates_of_a_training(tmp_path: Path) -> None:
    """The tables of their numbers are fitted on events; without any there is no package."""
    source = hub_folder(tmp_path / "Llama")
    config = tmp_path / "train.toml"
    config.write_text('[templates]\npost = ["count.like", "text"]\nhistory_ages = true\nquery_instruction = "find"')
    recorded = write_events(tmp_path / "events.jsonl", events(20))
    limits = ["--post-tokens", "64", "--member-tokens", "64", "--config", str(config)]

    def created(name: str, *more: str) -> Any:
        arguments = ["create", str(source), "--out", str(tmp_path / name), *limits, *more]
        return CliRunner().invoke(package_command, arguments)

    refused = created("refused")
    assert "names numbers (count.like, age), whose quantile tables are fitted on events" in str(refused.exception)
    config.write_text(config.read_text().replace("count.like", "count.share"))
    missing = created("missing", "--events", str(recorded))
    assert "templates.post names count.share, which no event" in str(missing.exception)
    assert not (tmp_path / "refused").exists()
    assert not (tmp_path / "missing").exists()
    config.write_text(config.read_text().replace("count.share", "count.like") + "\n[member_vectors]\nmost = 3\n")
    made = created("made", "--events", str(recorded))
    assert made.exit_code == 0, made.output
    manifest = ModelPackage.load(tmp_path / "made").manifest
    assert manifest.templates.post.fields == ("count.like", "text")
    assert manifest.member_vectors == MemberVectorsForm(most=3)
    assert manifest.quantiles["count.like"][-1] == 2
    assert manifest.quantiles[HISTORY_AGE][0] >= 0
    assert manifest.special_tokens["instruction"] == "<|nearline:instruction|>"
