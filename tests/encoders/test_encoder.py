import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch

from encoders.encoder import Encoder
from encoders.errors import BadPackage, BadText, Outcome, Unencodable
from encoders.package.manifest import (
    MeanForm,
    PoolingMode,
    PostTemplate,
    PromptForm,
    QueryTemplate,
    Templates,
    TokenLimits,
)
from encoders.package.model_package import ModelPackage
from tests.kit.data.contexts import history_entry, member_context, post_context
from tests.kit.packages import WORDS, make_tiny_package
from tests.kit.torch_threads import torch_threads


def vectors(outcomes: list[Outcome]) -> np.ndarray[Any, Any]:
    assert all(isinstance(outcome, np.ndarray) for outcome in outcomes), outcomes
    return np.stack(outcomes)  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_stock_sentence_transformers_gives_the_same_vectors(tmp_path: Path, pooling: PoolingMode) -> None:
    package = make_tiny_package(
        tmp_path / "p", pooling=pooling, templates=Templates(PostTemplate(("language", "text"))), dimension=64
    )
    texts = [*WORDS, "", "longer than the limit " * 100]
    stock = sentence_transformers.SentenceTransformer(str(package.folder), device="cpu")
    rendered = [f"<|nearline:language|>en<|nearline:text|>{text}" for text in texts]
    ours = vectors(
        Encoder.load(package.folder, device="cpu").encode_posts([post_context(text, language="en") for text in texts])
    )
    # The stock tokenizer cuts at the longer of the two limits; ours at the post's.
    stock.max_seq_length = package.manifest.token_limits.post
    assert stock.encode(rendered) == pytest.approx(ours, abs=1e-5)


def test_stock_sentence_transformers_gives_cut_vectors_with_its_own_normalising(tmp_path: Path) -> None:
    package = make_tiny_package(tmp_path / "p", dimension=16)
    stock = sentence_transformers.SentenceTransformer(str(package.folder), device="cpu")
    rendered = [f"<|nearline:text|>{text}" for text in WORDS]
    ours = np.stack(Encoder.load(package.folder, device="cpu").encode_texts(WORDS))
    assert ours.shape == (len(WORDS), 16)
    assert stock.encode(rendered, truncate_dim=16, normalize_embeddings=True) == pytest.approx(ours, abs=1e-5)


def test_sentence_transformers_writes_the_same_files(package: ModelPackage, tmp_path: Path) -> None:
    stock = sentence_transformers.SentenceTransformer(str(package.folder), device="cpu")
    stock.save(str(tmp_path), create_model_card=False)
    for name in ("modules.json", "1_Pooling/config.json", "2_Normalize/config.json", "sentence_bert_config.json"):
        assert json.loads((tmp_path / name).read_text()) == json.loads((package.folder / name).read_text()), name


def test_deleted_posts_have_no_vector_and_order_is_kept(encoder: Encoder) -> None:
    outcomes = encoder.encode_posts(
        [post_context("bread"), post_context("", deleted=True), post_context("oven"), post_context("")]
    )
    assert [outcome is None for outcome in outcomes] == [False, True, False, False]
    assert outcomes[2] == pytest.approx(encoder.encode_text("oven"), abs=1e-6)


def test_repeated_texts_are_encoded_once(encoder: Encoder) -> None:
    before = encoder.stats.prompts
    outcomes = encoder.encode_posts([post_context("bread", post_id=str(number)) for number in range(50)])
    assert encoder.stats.prompts - before == 1
    assert len({vector.tobytes() for vector in vectors(outcomes)}) == 1


def test_many_contexts_go_in_windows_and_give_the_same(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = [post_context(f"{WORDS[number % 4]} {number}", post_id=str(number)) for number in range(60)]
    whole = vectors(encoder.encode_posts(contexts))
    monkeypatch.setattr("encoders.encoder._POST_WINDOW", 7)
    assert vectors(encoder.encode_posts(contexts)) == pytest.approx(whole, abs=1e-6)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("prepare")] == []


def test_one_bad_record_does_not_harm_the_others(encoder: Encoder) -> None:
    for outcomes in (
        encoder.encode_posts([post_context("a"), post_context("half \ud800"), post_context("b")]),
        encoder.encode_members(
            [
                member_context(history_entry("a")),
                member_context(history_entry("half \ud800")),
                member_context(headline="b"),
            ]
        ),
    ):
        assert [isinstance(outcome, Unencodable) for outcome in outcomes] == [False, True, False]


def test_a_text_that_cannot_be_encoded_is_an_error_of_its_own(encoder: Encoder) -> None:
    with pytest.raises(BadText, match="lone surrogate"):
        encoder.encode_text("\ud800")


@pytest.mark.parametrize("text", ["", " \n"])
def test_a_query_without_words_is_refused(encoder: Encoder, text: str) -> None:
    with pytest.raises(BadText, match="empty"):
        encoder.encode_text(text)


def test_a_member_of_the_form_mean_is_the_weighted_mean_of_its_texts(tmp_path: Path) -> None:
    form = MeanForm(2.0, {"wrote": 3.0})
    encoder = Encoder.load(make_tiny_package(tmp_path / "p", member_form=form).folder, device="cpu")
    (vector,) = encoder.encode_members(
        [member_context(history_entry("bread", "wrote"), history_entry("oven"), headline="dev", skills=["go"])]
    )
    profile, bread, oven = (encoder.encode_text(text) for text in ("dev\ngo", "bread", "oven"))
    expected = 2 * profile + 3 * bread + oven
    assert vector == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)


def test_the_form_mean_encodes_only_texts_it_does_not_know(encoder: Encoder) -> None:
    first = member_context(history_entry("bread"), history_entry("oven"))
    (fresh,) = encoder.encode_members([first])
    before = encoder.stats.prompts
    (again,) = encoder.encode_members([first])
    assert encoder.stats.prompts == before
    assert np.array_equal(fresh, again)  # type: ignore[arg-type]
    encoder.encode_members([member_context(history_entry("oven"), history_entry("fog"), headline="bread")])
    assert encoder.stats.prompts == before + 1


def test_a_member_of_the_form_prompt_is_one_prompt(tmp_path: Path) -> None:
    package = make_tiny_package(tmp_path / "p", member_form=PromptForm())
    encoder = Encoder.load(package.folder, device="cpu")
    before = encoder.stats.prompts
    context = member_context(history_entry("bread"), history_entry("oven", "wrote"), headline="dev")
    ours = vectors(encoder.encode_members([context]))
    assert encoder.stats.prompts == before + 1
    stock = sentence_transformers.SentenceTransformer(str(package.folder), device="cpu")
    rendered = "<|nearline:headline|>dev<|nearline:action.like|>bread<|nearline:action.wrote|>oven"
    assert stock.encode([rendered]) == pytest.approx(ours, abs=1e-5)


@pytest.mark.parametrize("form", [MeanForm(), PromptForm()])
def test_members_without_anything_to_encode_have_no_vector(tmp_path: Path, form: MeanForm | PromptForm) -> None:
    encoder = Encoder.load(make_tiny_package(tmp_path / "p", member_form=form).folder, device="cpu")
    outcomes = encoder.encode_members(
        [member_context(), member_context(deleted=True, headline="x"), member_context(language="en")]
    )
    assert outcomes == [None, None, None]
    assert encoder.encode_members([]) == []


def test_loading_twice_gives_the_same_vectors_to_the_bit(package: ModelPackage) -> None:
    contexts = [post_context(text) for text in WORDS]
    first, second = (Encoder.load(package.folder, device="cpu") for _ in range(2))
    assert np.array_equal(vectors(first.encode_posts(contexts)), vectors(second.encode_posts(contexts)))


def test_warm_up_fills_a_text_to_the_limit(encoder: Encoder) -> None:
    before = encoder.stats.tokens
    encoder.warm_up()
    assert encoder.stats.tokens - before > encoder.package.manifest.token_limits.post


def test_where_batches_run_side_by_side_each_has_one_thread_of_torchs(package: ModelPackage) -> None:
    for threads, of_torch in ((None, 3), (1, 1), (2, 1)):
        with torch_threads(3):
            Encoder.load(package.folder, device="cpu", threads=threads)
            assert torch.get_num_threads() == of_torch


def test_limits_that_the_model_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPackage, match="positions"):
        make_tiny_package(tmp_path / "p", token_limits=TokenLimits(post=64, member=8192))


def test_threads_may_share_one_encoder(encoder: Encoder) -> None:
    expected = encoder.encode_text(WORDS[0])
    outcomes: list[Any] = []
    threads = [threading.Thread(target=lambda: outcomes.append(encoder.encode_text(WORDS[0]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert all(np.array_equal(vector, expected) for vector in outcomes)


def test_a_query_is_encoded_by_the_query_template(tmp_path: Path) -> None:
    templates = Templates(query=QueryTemplate("find posts about"))
    encoder = Encoder.load(make_tiny_package(tmp_path / "p", templates=templates).folder, device="cpu")
    stock = sentence_transformers.SentenceTransformer(str(encoder.package.folder), device="cpu")
    prompt = "<|nearline:instruction|>find posts about<|nearline:text|>bread"
    assert stock.encode(prompt) == pytest.approx(encoder.encode_text("bread"), abs=1e-5)
    (post,) = encoder.encode_texts(["bread"])
    assert stock.encode("<|nearline:text|>bread") == pytest.approx(post, abs=1e-5), "a post is no query"
