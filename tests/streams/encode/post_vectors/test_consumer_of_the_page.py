"""The consumer of `docs/post-vectors.md`: it is run as it stands there, with nothing of nearline."""

import ast
import base64
import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Message, TopicPartition

from schemas import topics
from streams.encode.post_vectors.records import cut_vector
from streams.kafka.topics import ensure_topics
from tests.kit.data.contexts import post_context
from tests.kit.encoders import MendedEncoder, mended_vector_of, vector_of
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.stages import EncodeStageSetup
from tests.kit.post_vectors import POST_VECTORS_DIMENSION, Serving
from tests.kit.running import in_thread
from tests.kit.waiting import until

PAGE = Path(__file__).parents[4] / "docs" / "post-vectors.md"


def _code() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(code)


def test_it_is_short_and_imports_what_any_team_has() -> None:
    tree = ast.parse(_code())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"base64", "json", "numpy", "confluent_kafka"}
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    assert len(statements) - 2 <= 20, "twenty statements, without its first line and its docstring"


class OneBatch:
    """In place of the client: all records at once, and then none."""

    def __init__(self, records: list[Message]) -> None:
        self._records = records

    def subscribe(self, _: list[str]) -> None: ...

    def consume(self, _: int, timeout: float) -> list[Message]:
        records, self._records = self._records, []
        return records

    def assignment(self) -> None: ...

    def position(self, _: None) -> list[TopicPartition]:
        return [TopicPartition(topics.POST_VECTORS, 0, 100)]

    def close(self) -> None: ...


def _vector(key: str, generation: str) -> Message:
    value = json.dumps({"generation": generation, "vector": base64.b64encode(np.float32([1]).tobytes()).decode()})
    return Message(topic=topics.POST_VECTORS, key=key.encode(), value=value.encode())


def _switch(generation: str) -> Message:
    value = json.dumps({"generation": generation, "complete": {"0": 100}})
    return Message(topic=topics.POST_VECTORS_SWITCH, key=b"post-vectors", value=value.encode())


@pytest.mark.parametrize("first", ["vectors", "switches"])
@pytest.mark.parametrize("generations", ["aa", "ab", "aba"])
def test_it_keeps_every_vector_whichever_topic_is_read_first(generations: str, first: str) -> None:
    vectors = [_vector(key, generation) for generation in generations for key in ("p1", "p2", "p3")]
    vectors.append(Message(topic=topics.POST_VECTORS, key=b"p3", value=None))
    switches = [_switch(generation) for generation in generations]
    names: dict[str, Any] = {}
    exec(_code(), names)
    names["Consumer"] = lambda _: OneBatch(vectors + switches if first == "vectors" else switches + vectors)
    with closing(names["follow"]("")) as followed:
        assert next(followed).keys() == {b"p1", b"p2"}


@pytest.mark.broker
def test_it_has_every_vector_of_the_generation_that_serves(
    clean_topics: RunningBroker, encode: EncodeStageSetup
) -> None:
    names: dict[str, Any] = {}
    exec(_code(), names)
    ensure_topics(encode.kafka, topics.POST_VECTOR_SPECS)
    serving, other = Serving(), EncodeStageSetup(clean_topics)
    other.encoder = MendedEncoder()
    encode.send(*(post_context(f"text {n}", post_id=f"p{n}") for n in range(10)))
    serving.promote(encode.generation)
    with (
        in_thread(encode.stage(post_vectors=serving.post_vectors_of(encode.generation)).run),
        in_thread(other.stage(post_vectors=serving.post_vectors_of(other.generation)).run),
        closing(names["follow"](str(encode.kafka.bootstrap_servers))) as vectors,
    ):
        until(lambda: len(next(vectors)) == 10, "all posts")
        np.testing.assert_array_equal(next(vectors)[b"p3"], cut_vector(vector_of("text 3"), POST_VECTORS_DIMENSION))
        encode.send(post_context(post_id="p0", revision=2, deleted=True))
        until(lambda: b"p0" not in next(vectors), "the delete")
        other.until_no_lag()
        serving.promote(other.generation)
        new = cut_vector(mended_vector_of("text 3"), POST_VECTORS_DIMENSION)
        seen = [next(vectors)]
        while not np.array_equal(seen[-1][b"p3"], new):
            seen.append(next(vectors))
    assert {len(of_generation) for of_generation in seen} == {9}, "all posts at any time, of one generation"
    with closing(names["follow"](str(encode.kafka.bootstrap_servers))) as fresh:
        assert next(fresh).keys() == {f"p{n}".encode() for n in range(1, 10)}
