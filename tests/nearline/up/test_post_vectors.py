"""Whether the encode stage of a generation writes `post-vectors`, and in which reign."""

from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from encoders.package.manifest import PostTemplate, Templates
from encoders.package.model_package import ModelPackage
from nearline.settings.settings import Settings
from nearline.up.post_vectors import post_vectors_of
from nearline.up.residence import Resident
from schemas.generations import Pointer
from schemas.ids import Generation
from streams.encode.post_vectors.reign import Reign
from streams.generations.state import Generations
from tests.kit.data.generations import AT, generation_record, two_live
from tests.kit.packages import make_tiny_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return make_tiny_package(tmp_path_factory.mktemp("package") / "tiny", hidden=64, dimension=32)


def _settings(folder: Path, dimension: int = 50) -> Settings:
    return Settings.model_validate({"data_dir": folder, "encode": {"post_vectors_dimension": dimension}})


def test_a_generation_writes_while_it_serves_and_each_time_in_a_new_reign(
    tmp_path: Path, package: ModelPackage
) -> None:
    states = [two_live("ready")]
    resident = Resident(states[0].records[Generation("a-1")], package, lambda: states[-1])
    post_vectors = post_vectors_of(_settings(tmp_path, 16), resident)
    assert post_vectors.reign() == Reign(Generation("a-1"), AT, 16, is_text=True)
    kept, serving = generation_record("a-1", "kept"), generation_record("b-2", "serving", "green")
    states.append(states[-1].with_records([kept, serving, Pointer(serving.id, kept.id)]))
    assert post_vectors.reign() is None
    later = AT + timedelta(hours=1)
    back = [replace(kept, state="serving", since=later), replace(serving, state="kept", since=later)]
    states.append(states[-1].with_records([*back, Pointer(kept.id, serving.id, rolled_back=True)]))
    assert post_vectors.reign() == Reign(Generation("a-1"), later, 16, is_text=True)
    begun_again = replace(back[0], begun=later)
    states.append(Generations({kept.id: begun_again}, Pointer(kept.id)))
    assert post_vectors.reign() is None, "it was retired and built again: others work for that one"


def test_a_package_has_no_more_numbers_than_it_has_and_says_whether_its_prompt_is_the_text(
    tmp_path: Path, package: ModelPackage
) -> None:
    fields = Templates(PostTemplate(("author", "text")))
    tokens = {**package.manifest.special_tokens, "author": package.manifest.special_tokens["text"]}
    manifest = replace(package.manifest, templates=fields, special_tokens=tokens)
    more = ModelPackage(package.folder, manifest, package.digest)
    for of_package, is_text in ((package, True), (more, False)):
        state = two_live("ready")
        resident = Resident(state.records[Generation("a-1")], of_package, lambda state=state: state)
        post_vectors = post_vectors_of(_settings(tmp_path), resident)
        assert (post_vectors.dimension, post_vectors.is_text) == (32, is_text)
