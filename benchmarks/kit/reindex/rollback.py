"""How long it takes from the command until every process of the retriever answers from the kept generation again."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.kit.pipeline_load import write_posts
from benchmarks.kit.reindex.instance import SMALL, build, serving, two_packages
from benchmarks.kit.table import Figure
from benchmarks.kit.waiting import until
from retriever.client import RetrieverClient
from schemas.api import RetrieveRequest

_WORKERS: Final = 2
_LOOK_EVERY_S: Final = 0.02
_FORCED: Final = ("--force", "--reason", "it is measured")


class RollbackSizes(NamedTuple):
    posts: int
    rounds: int


def rollback(folder: Path, sizes: RollbackSizes, texts: list[str]) -> list[Figure]:
    package, other = two_packages(folder, SMALL)
    write_posts(folder / "posts.jsonl", texts, range(sizes.posts))
    took_s: list[float] = []
    with ExitStack() as stack:
        pipeline = stack.enter_context(
            serving(folder, package, folder / "posts.jsonl", sizes.posts, serve__workers=_WORKERS)
        )
        before, generation = pipeline.instance.generation, build(pipeline, other)
        retrievers = [stack.enter_context(RetrieverClient(url)) for url in pipeline.instance.workers.values()]
        if len(retrievers) != _WORKERS:
            raise RuntimeError(f"there are {len(retrievers)} processes of the retriever, and not {_WORKERS}")
        pool = stack.enter_context(ThreadPoolExecutor(1))
        for _ in range(sizes.rounds):
            pipeline.run("generations", "promote", generation, *_FORCED)
            _until_all_answer_from(retrievers, generation)
            began = time.monotonic()
            command = pool.submit(pipeline.run, "generations", "rollback")
            _until_all_answer_from(retrievers, before)
            took_s.append(time.monotonic() - began)
            command.result()
    return [
        Figure("rollbacks", len(took_s)),
        Figure("rollback: processes of the retriever", len(retrievers)),
        Figure("rollback: seconds until all answer from the kept generation, most", max(took_s), 5.0, "at_most"),
    ]


def _until_all_answer_from(retrievers: Sequence[RetrieverClient], generation: str) -> None:
    """With whole answers. One that has come from this generation is followed by no older one, as the log has it."""
    for retriever in retrievers:
        until(lambda each=retriever: _answers_from(each, generation), f"answers from {generation}", _LOOK_EVERY_S)


def _answers_from(retriever: RetrieverClient, generation: str) -> bool:
    answer = retriever.retrieve(RetrieveRequest(text="a walk in the harbor", k=10))
    return answer.generation == generation and not answer.partial
