import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encoders.package.manifest import MANIFEST_FILE
from tests.kit.data.training_events import events, feed_of
from tests.kit.packages import make_tiny_package, poison
from trainer.errors import BadBaseline
from trainer.evaluation.evaluation import Evaluation
from trainer.evaluation.sentence_model import SentenceModel, refuse_code
from trainer.evaluation.task import evaluation_task


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as sentence-transformers saves it: a package without what makes it one of ours."""
    folder = make_tiny_package(tmp_path_factory.mktemp("saved") / "model", layers=1).folder
    (folder / MANIFEST_FILE).unlink()
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_any_model_of_sentence_transformers_is_measured(saved: Path) -> None:
    vectors = SentenceModel(saved, device="cpu").encode(["bread and butter", "bread and butter", "a kernel"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-6)
    feed = feed_of(events(200))
    measured = Evaluation(feed, evaluation_task(feed, feed.cut(0.15))).folder(saved, device="cpu")
    assert (measured.result.system, measured.result.history, measured.result.dimension) == ("model", "acted", 64)
    assert measured.result.groups["protocol"].recall["2000"] == 1.0


def change_modules(folder: Path, kind: str) -> None:
    modules = json.loads((folder / "modules.json").read_bytes())
    modules[0]["type"] = kind
    (folder / "modules.json").write_text(json.dumps(modules))


def own_module(folder: Path) -> None:
    change_modules(folder, "my_module.Transformer")


def module_that_loads_others(folder: Path) -> None:
    change_modules(folder, "sentence_transformers.sentence_transformer.modules.word_embeddings.WordEmbeddings")


def automatic_map(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling.Model"}}))


def add_dense(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_bytes())
    kind = "sentence_transformers.sentence_transformer.modules.Dense"
    (folder / "modules.json").write_text(json.dumps([*modules, {"idx": 9, "path": "3_Dense", "type": kind}]))
    (folder / "3_Dense").mkdir()


def foreign_activation(folder: Path) -> None:
    add_dense(folder)
    (folder / "3_Dense" / "config.json").write_text(json.dumps({"activation_function": "os.system"}))


def pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(poison(folder / "it-was-loaded"))


def pickled_weights_of_another_module(folder: Path) -> None:
    """Beside safetensors of a name that nobody looks for."""
    add_dense(folder)
    shutil.copy(folder / "model.safetensors", folder / "3_Dense" / "other.safetensors")
    (folder / "3_Dense" / "pytorch_model.bin").write_bytes(poison(folder / "it-was-loaded"))


def test_what_is_never_opened_is_no_reason_to_refuse(folder: Path) -> None:
    """As the folders of well-known models have it."""
    (folder / "train_script.py").write_text("raise SystemExit(1)")
    (folder / "openvino").mkdir()
    for name in ("training_args.bin", "pytorch_model.bin", "openvino/openvino_model.bin"):
        (folder / name).write_bytes(poison(folder / "it-was-loaded"))
    assert SentenceModel(folder, device="cpu").encode(["bread"]).shape == (1, 64)
    assert not (folder / "it-was-loaded").exists()


def test_a_module_elsewhere_is_refused(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_bytes())
    for path in ("../other", str(folder)):
        (folder / "modules.json").write_text(json.dumps([{**modules[0], "path": path}]))
        with pytest.raises(BadBaseline, match=r"which lies elsewhere"):
            refuse_code(folder)


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (own_module, "the module my_module.Transformer"),
        (module_that_loads_others, "the module sentence_transformers"),
        (automatic_map, "a class that config.json names"),
        (foreign_activation, "a class that 3_Dense/config.json names"),
        (pickled_weights, "the pickled weights pytorch_model.bin"),
        (pickled_weights_of_another_module, "the pickled weights 3_Dense/pytorch_model.bin"),
    ],
)
def test_a_folder_that_would_run_code_is_refused(folder: Path, spoil: Callable[[Path], None], names: str) -> None:
    spoil(folder)
    with pytest.raises(BadBaseline, match=r"would run code when it is opened") as refusal:
        SentenceModel(folder, device="cpu")
    assert names in str(refusal.value)
    assert not (folder / "it-was-loaded").exists()


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BadBaseline, match=r"has no modules.json"):
        refuse_code(tmp_path)
    (folder / "config.json").write_text("{}")
    with pytest.raises(BadBaseline, match=r"cannot be loaded by sentence-transformers"):
        SentenceModel(folder, device="cpu")
    (folder / "modules.json").write_text("not JSON")
    with pytest.raises(BadBaseline, match=r"modules.json is not JSON"):
        refuse_code(folder)
