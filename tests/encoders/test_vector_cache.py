"""What was encoded once is found again, and only the memory that was given is used."""

from pathlib import Path

import numpy as np

from encoders.encoder import Encoder
from encoders.vector_cache import VectorCache, prompt_key
from tests.kit.data.contexts import history_entry, member_context, post_context
from tests.kit.packages import make_tiny_package

ENTRY_BYTES = 350 + 4 * 2


def test_the_cache_keeps_what_was_used_last() -> None:
    cache = VectorCache(2, max_bytes=2 * ENTRY_BYTES)
    for number, text in enumerate("ab"):
        cache.put(text, np.full(2, number, dtype=np.float32))
    cache.find(["a"])
    cache.put("c", np.zeros(2, dtype=np.float32))
    assert set(cache.find(["a", "b", "c"])) == {"a", "c"}
    assert (len(cache), cache.hits, cache.misses) == (2, 3, 1)


def test_the_cache_holds_copies_and_not_their_batch() -> None:
    cache = VectorCache(2)
    batch = np.zeros((1000, 2), dtype=np.float32)
    cache.put("a", batch[0])
    assert cache.find(["a"])["a"].base is None


def test_the_cache_holds_no_text_and_forgets_what_nobody_asks_for() -> None:
    now = [0.0]
    cache = VectorCache(2, clock=lambda: now[0])
    for text in ("asked for", "erased"):
        cache.put(text, np.zeros(2, dtype=np.float32))
    assert not any(isinstance(key, str) or b"erased" in key for key in cache._entries)
    now[0] = 9.0
    cache.find(["asked for"])
    now[0] = 10.0
    cache.forget_unused(10.0)
    assert set(cache.find(["asked for", "erased"])) == {"asked for"}
    assert len(cache) == 1


def test_prompts_share_a_key_only_if_they_are_equal() -> None:
    assert prompt_key([1, 2]) == prompt_key([1, 2])
    assert len({prompt_key(ids) for ids in ([1, 2], [2, 1], [1, 2, 0], [258])}) == 4


def test_a_post_whose_counts_alone_have_changed_is_not_encoded_again(tmp_path: Path) -> None:
    encoder = Encoder.load(make_tiny_package(tmp_path / "package").folder, device="cpu", threads=1)
    (first,) = encoder.encode_posts([post_context("the network card", revision=1, counts={"like": 0})])
    prompts = encoder.stats.prompts
    second, edited = encoder.encode_posts(
        [
            post_context("the network card", revision=2, counts={"like": 9}),
            post_context("a sourdough starter", revision=3),
        ]
    )
    assert encoder.stats.prompts == prompts + 1
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))
    assert not np.allclose(np.asarray(first), np.asarray(edited))


def test_a_short_post_in_a_history_is_not_encoded_again(tmp_path: Path) -> None:
    encoder = Encoder.load(make_tiny_package(tmp_path / "package").folder, device="cpu", threads=1)
    encoder.encode_posts([post_context("the network card", revision=1)])
    prompts = encoder.stats.prompts
    encoder.encode_members([member_context(history_entry("the network card"))])
    assert encoder.stats.prompts == prompts


def test_an_encoder_forgets_what_nobody_asks_for(tmp_path: Path) -> None:
    encoder = Encoder.load(make_tiny_package(tmp_path / "package").folder, device="cpu", threads=1)
    encoder.encode_texts(["an erased text"])
    encoder.encode_members([member_context(history_entry("an erased text"))])
    encoder.forget_unused(3600)
    assert len(encoder.by_text)
    assert len(encoder.by_prompt)
    encoder.forget_unused(0)
    assert (len(encoder.by_text), len(encoder.by_prompt)) == (0, 0)
