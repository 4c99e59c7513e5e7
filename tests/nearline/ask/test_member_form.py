from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import UNSET, UnsetType

from encoders.package.manifest import MeanForm, MemberForm, MemberVectorsForm, PromptForm
from indexer.tiers import StoredMember
from nearline.ask import member_form
from nearline.ask.connections import Connections
from nearline.ask.member_form import ServedForm, form_of, served_form, vectors_of
from nearline.errors import NotRunning
from nearline.settings.instance import Instance
from nearline.settings.settings import Settings
from schemas.embeddings import Interest, pack_interests
from schemas.generations import GenerationRecord, PackageSource
from schemas.ids import Generation, MemberId, Revision
from streams.generations.state import Generations
from tests.kit.data.generations import AT
from tests.kit.packages import make_tiny_package

VECTORS = np.eye(3, 4, dtype=np.float32)
INTERESTS = pack_interests(
    [Interest(vector_D, weight) for vector_D, weight in zip(VECTORS, (2.0, 1.0, 1.0), strict=True)]
)
STORED = StoredMember(MemberId("m"), Revision(1), False, [], [], VECTORS[0], [])
AUTO = {
    "inner_split": {
        "chosen": "prompt",
        "measured": {
            "mean": [{"tokens": 10, "recall": 0.3, "ndcg": 0.1}, {"tokens": 20, "recall": 0.25, "ndcg": 0.1}],
            "prompt": [{"tokens": 10, "recall": 0.41, "ndcg": 0.2}],
        },
    }
}


@pytest.mark.parametrize(
    ("form", "training", "words"),
    [
        (PromptForm(), AUTO, "prompt, profile and history as one prompt: the best one on an inner split of its "
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


@pytest.mark.parametrize(
    ("member", "several", "words"),
    [
        (None, UNSET, "0: the cold tier does not hold the member"),
        (STORED._replace(deleted=True, vector=None), UNSET, "0: the member is deleted"),
        (STORED._replace(vector=None), UNSET, "0: the member has neither profile nor history"),
        (STORED, UNSET, "1: the package gives each member one"),
        (STORED, MemberVectorsForm(most=3),
         "1: what it acted on is not several clusters; the package gives at most 3 beside it"),
        (STORED._replace(interests=INTERESTS), MemberVectorsForm(most=3),
         "4 (weights 0.50, 0.25, 0.12, 0.12): its one vector, and one for each cluster of what it acted on"),
    ],
)  # fmt: skip
def test_a_member_is_asked_with_its_one_vector_and_those_of_its_interests(
    tmp_path: Path, member: StoredMember | None, several: MemberVectorsForm | UnsetType, words: str
) -> None:
    package = make_tiny_package(tmp_path / "package", hidden=32, layers=1, member_vectors=several)
    assert str(vectors_of(member, form_of(package.manifest))).startswith(words)


def test_of_a_package_that_is_not_here_the_form_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = make_tiny_package(tmp_path / "package", hidden=32, layers=1, member_form=MeanForm())
    settings = Settings(data_dir=tmp_path / "data", package=package.folder)

    def no_instance() -> Instance:
        raise NotRunning(tmp_path)

    connections = Connections(settings, no_instance)
    monkeypatch.setattr(Connections, "generation", package.generation)
    monkeypatch.setattr(Connections, "kafka", settings.kafka)

    def served(records: dict[Generation, GenerationRecord]) -> str:
        monkeypatch.setattr(member_form, "read_generations", lambda _: Generations(records))
        return str(served_form(connections))

    def record(digest: str) -> dict[Generation, GenerationRecord]:
        source = PackageSource(folder=str(tmp_path / "elsewhere"))
        return {package.generation: GenerationRecord(package.generation, "serving", "blue", source, digest, AT)}

    assert served(record(package.digest)).startswith("mean, ")
    unknown = ServedForm(None, "the package is not on this machine")
    assert str(vectors_of(STORED, unknown)) == "1: whether the package would give it more is not known here"
    assert served(record("0" * 64)) == f"the package of {package.generation} is not on this machine"
    assert "does not name the package" in served({})
