from pathlib import Path
from typing import Any

import pytest

from encoders.package.manifest import MeanForm, MemberForm, PromptForm
from nearline.ask.connections import Connections
from nearline.ask.member_form import form_of, served_form
from nearline.errors import NotRunning
from nearline.settings.instance import Instance
from nearline.settings.settings import Settings
from schemas.generations import GenerationRecord, PackageSource
from schemas.ids import Generation
from streams.generations.state import Generations
from tests.kit.data.generations import AT
from tests.kit.packages import make_tiny_package

AUTO = {
    "inner_split": {
        "member_form": "prompt",
        "measured": {
            "mean": [{"tokens": 10, "recall": 0.3, "ndcg": 0.1}, {"tokens": 20, "recall": 0.25, "ndcg": 0.1}],
            "prompt": [{"tokens": 10, "recall": 0.41, "ndcg": 0.2}],
        },
    }
}


@pytest.mark.parametrize(
    ("form", "training", "words"),
    [
        (PromptForm(), AUTO, "prompt, profile and history as one prompt: the better one on an inner split of its "
         "training's events (Recall@100: mean 0.300, prompt 0.410)"),
        (MeanForm(), {"tokens": 10}, "mean, the mean of the vectors of profile and history: as the settings of its"),
        (MeanForm(), {}, "it was not trained here"),
    ],
)  # fmt: skip
def test_a_package_says_its_form_and_why(
    tmp_path: Path, form: MemberForm, training: dict[str, Any], words: str
) -> None:
    package = make_tiny_package(tmp_path / "package", hidden=32, layers=1, member_form=form, training=training)
    assert words in str(form_of(package.manifest))


def test_of_a_package_that_is_not_here_the_form_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = make_tiny_package(tmp_path / "package", hidden=32, layers=1, member_form=MeanForm())
    settings = Settings(data_dir=tmp_path / "data", package=package.folder)

    def no_instance() -> Instance:
        raise NotRunning(tmp_path)

    connections = Connections(settings, no_instance)
    monkeypatch.setattr(Connections, "generation", package.generation)

    def served(records: dict[Generation, GenerationRecord]) -> str:
        monkeypatch.setattr(Connections, "generations", Generations(records))
        return str(served_form(connections))

    def record(digest: str) -> dict[Generation, GenerationRecord]:
        source = PackageSource(folder=str(tmp_path / "elsewhere"))
        return {package.generation: GenerationRecord(package.generation, "serving", "blue", source, digest, AT)}

    assert served(record(package.digest)).startswith("mean, ")
    assert served(record("0" * 64)) == f"the package of {package.generation} is not on this machine"
    assert "does not name the package" in served({})
