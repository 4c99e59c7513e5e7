"""Stock sentence-transformers gives the rendered texts the vectors that we give the contexts."""

from pathlib import Path

import numpy as np
import pytest
import sentence_transformers

from encoders.encoder import Encoder
from encoders.errors import Unencodable
from encoders.package.manifest import MeanForm, MemberForm, MemberTemplate, PostTemplate, PromptForm, Templates
from encoders.prompt.member_mean import weighted_mean
from encoders.prompt.rendering import Rendered, Renderer
from tests.kit.data.contexts import history_entry, member_context, post_context
from tests.kit.packages import WORDS, make_tiny_package

TEMPLATES = Templates(
    PostTemplate(("author", "language", "text"), "find what this is about"),
    MemberTemplate(instruction="what would they read"),
)
POSTS = [post_context(text, language="en") for text in (*WORDS, "Umlaute äöü, 漢字", "two\nlines  and  spaces ")]
MEMBERS = [
    member_context(history_entry("bread"), history_entry("oven", "wrote"), headline="baker", skills=["go", "c"]),
    member_context(history_entry("fog")),
]


@pytest.mark.parametrize("form", [PromptForm(), MeanForm(profile_weight=2.0)])
def test_rendered_texts_have_the_same_vectors(tmp_path: Path, form: MemberForm) -> None:
    package = make_tiny_package(tmp_path / "p", member_form=form, templates=TEMPLATES)
    encoder, renderer = Encoder.load(package.folder, device="cpu"), Renderer(package)
    stock = sentence_transformers.SentenceTransformer(str(package.folder), device="cpu")

    def by_stock(rendered: list[Rendered]) -> np.ndarray:  # type: ignore[type-arg]
        of_prompts = []
        for parts in rendered:
            assert not isinstance(parts, Unencodable)
            vectors = [stock.encode(part.text) for part in parts]
            of_prompts.append(weighted_mean(vectors, [part.weight for part in parts]))
        return np.stack(of_prompts)  # type: ignore[arg-type]

    assert by_stock(renderer.posts(POSTS)) == pytest.approx(np.stack(encoder.encode_posts(POSTS)), abs=1e-5)  # type: ignore[arg-type]
    assert by_stock(renderer.members(MEMBERS)) == pytest.approx(np.stack(encoder.encode_members(MEMBERS)), abs=1e-5)  # type: ignore[arg-type]


def test_what_is_not_encoded_is_not_rendered(tmp_path: Path) -> None:
    renderer = Renderer(make_tiny_package(tmp_path / "p"))
    assert renderer.posts([post_context("", deleted=True)]) == [[]]
    assert renderer.members([member_context(), member_context(deleted=True)]) == [[], []]
    (odd,) = renderer.posts([post_context("half \ud800")])
    assert isinstance(odd, Unencodable)
