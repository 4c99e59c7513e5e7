import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from encoders.encoder import Encoder
from encoders.package.model_package import WEIGHTS_FILE, ModelPackage
from tests.kit.data.training_events import events, feed_of
from tests.kit.packages import make_tiny_package
from trainer.data.feed import Feed
from trainer.errors import BadStart
from trainer.model.collator import Collator
from trainer.settings import TrainSettings
from trainer.training import Plan, train

RANK = 2
ON_A_GPU = {"precision": "bf16", "pass_tokens": 128, "gradient_checkpointing": True, "cached_gradients": True}
"""What is chosen for a card on which little fits."""
SETTINGS = TrainSettings.model_validate(
    {"lora_rank": RANK, "batch_tokens": 512, "era": 100, "rate": 1e-2, "checkpoint_steps": 3, **ON_A_GPU}
)


@pytest.fixture(scope="module")
def feed() -> Feed:
    return feed_of(events(150))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return make_tiny_package(tmp_path_factory.mktemp("lora") / "start", hidden=32, layers=2)


def trained(feed: Feed, start: ModelPackage | None, out: Path, *, resume: bool = False) -> ModelPackage:
    folder = None if start is None else start.folder
    package = train(feed, Plan(feed.cut(0.15), 5_000, 0, SETTINGS, "lora", folder), out, resume=resume)
    assert package is not None
    return package


@pytest.fixture(scope="module")
def whole(feed: Feed, start: ModelPackage, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """Trained without a stop."""
    return trained(feed, start, tmp_path_factory.mktemp("lora") / "whole")


def test_adapters_alone_learn_and_are_merged_into_the_matrices(start: ModelPackage, whole: ModelPackage) -> None:
    before, after = (load_file(package.folder / WEIGHTS_FILE) for package in (start, whole))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj" in name} | {"embed_tokens.weight"}
    for name in changed - {"embed_tokens.weight"}:
        sizes = torch.linalg.svdvals((after[name] - before[name]).double())
        assert sizes[RANK - 1] > 100 * sizes[RANK], f"{name} changed by a matrix of another rank"
    rows = (before["embed_tokens.weight"] != after["embed_tokens.weight"]).any(1).nonzero().flatten().tolist()
    vocabulary = json.loads((start.folder / "tokenizer.json").read_bytes())["added_tokens"]
    special = {token["id"] for token in vocabulary if token["content"] in start.manifest.special_tokens.values()}
    assert set(rows) == special
    encoder = Encoder.load(whole.folder, device="cpu")
    stock = SentenceTransformer(str(whole.folder), device="cpu", local_files_only=True)
    prompt = f"{whole.manifest.special_tokens['text']}a long walk"
    assert np.allclose(stock.encode(prompt), encoder.encode_text("a long walk"), atol=1e-5)
    assert ON_A_GPU.items() <= whole.manifest.training["settings"].items()
    assert whole.manifest.training["losses"][-1][1] < whole.manifest.training["losses"][0][1]


def test_it_goes_on_from_a_checkpoint_of_adapters_to_the_same_weights(
    feed: Feed, start: ModelPackage, whole: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collate, calls = Collator.__call__, [0]

    def failing(*arguments: object) -> object:
        calls[0] += 1
        if calls[0] > 5:
            raise KeyboardInterrupt
        return collate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Collator, "__call__", failing)
    with pytest.raises(KeyboardInterrupt):
        trained(feed, start, tmp_path / "again")
    monkeypatch.undo()
    checkpoint = load_file(tmp_path / ".again.training" / "checkpoint-3" / WEIGHTS_FILE)
    assert all("lora" in name or "trainable_tokens" in name for name in checkpoint)
    again = trained(feed, start, tmp_path / "again", resume=True)
    assert again.manifest.files == whole.manifest.files


def test_nothing_to_adapt_is_refused(feed: Feed, tmp_path: Path) -> None:
    with pytest.raises(BadStart, match="give --from"):
        trained(feed, None, tmp_path / "package")
    assert not list(tmp_path.iterdir())
