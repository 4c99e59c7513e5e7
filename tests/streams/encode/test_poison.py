"""Contexts on which the encoder itself fails, through the real stage and a real encoder; the others are encoded."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from encoders.encoder import Encoder
from schemas import topics
from schemas.dead_letters import from_headers
from schemas.embeddings import decode_post_embedding, unpack_vector
from tests.kit.data.contexts import member_context, post_context
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.stages import EncodeStageSetup
from tests.kit.kafka.topics import read_topic
from tests.kit.packages import WORDS, FailsOn, make_tiny_package
from tests.kit.running import in_thread

pytestmark = pytest.mark.broker

POSTS = 200
EVERY = 50
POISON = "\x01"


def text_of(number: int) -> str:
    words = f"{number} {WORDS[number % len(WORDS)]}"
    return f"{words} {POISON}" if number % EVERY == 7 else words


def test_one_in_fifty_that_makes_the_encoder_fail_costs_no_other(clean_topics: RunningBroker, tmp_path: Path) -> None:
    folder = make_tiny_package(tmp_path / "p").folder
    healthy, failing = (Encoder.load(folder, device="cpu", threads=2) for _ in range(2))
    token = healthy._prompts._tokenizer(POISON)[0]
    failing._model.forward.model = FailsOn(failing._model.forward.model, token)  # type: ignore[assignment]
    encode = EncodeStageSetup(clean_topics)
    encode.encoder = cast(Any, failing)
    contexts = [post_context(post_id=f"p{number}", text=text_of(number)) for number in range(POSTS)]
    encode.send(
        *contexts,
        member_context(member_id="m", headline=WORDS[0]),
        member_context(member_id="poisoned", headline=POISON),
    )
    with in_thread(encode.stage().run):
        encode.until_no_lag()

    poisoned = {f"p{number}".encode() for number in range(POSTS) if POISON in text_of(number)}
    assert len(poisoned) == POSTS / EVERY
    causes = {letter.key(): from_headers(letter.headers()) for letter in read_topic(encode.kafka, topics.DEAD_LETTERS)}
    assert set(causes) == {*poisoned, b"poisoned"}
    assert {(cause.stage, cause.cause) for cause in causes.values()} == {
        ("encode", "the model fails on this text: poison")
    }
    assert [message.key() for message in encode.members()] == [b"m"]
    expected = healthy.encode_posts(contexts)
    embeddings = {message.key(): decode_post_embedding(message.value() or b"") for message in encode.posts()}
    for context, vector in zip(contexts, expected, strict=True):
        key = context.post_id.encode()
        assert (key in embeddings) == (key not in poisoned)
        if key in embeddings:
            np.testing.assert_allclose(unpack_vector(embeddings[key].vector), vector, atol=1e-6)
