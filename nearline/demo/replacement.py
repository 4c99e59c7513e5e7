"""The end of the demo: replaces the model of the running pipeline beside live traffic, and goes back.

While new posts come in and members ask, a second package is built beside the serving one, measured, promoted, and
rolled back. Each step prints its result, and raises DemoFailed when the result is not what it should be.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from threading import Event, Thread
from typing import Final

import click

from encoders.package.model_package import ModelPackage
from nearline.demo.job import DemoFailed, Input, kafka_of, new_post, send_post
from nearline.pipeline import Pipeline
from retriever.client import RetrieverClient
from retriever.errors import RetrieverError
from schemas.api import RetrieveRequest
from streams.operate.ingest import EventSender
from streams.settings import KafkaSettings

SOAK_S: Final = 15.0
"""How long the gate watches the generation's age of the oldest record: shorter than by default, because a demo is."""
_POSTS_PER_S: Final = 2.0
_QUESTIONS_PER_S: Final = 20.0
_MEMBERS: Final = 50
"""Who ask, in turn."""
_SERVES_S: Final = 5.0
"""How long each generation answers before the next move."""
_IN_EFFECT_S: Final = 30.0


def show_replacement(pipeline: Pipeline, input_: Input, print_line: Callable[[str], None] = click.echo) -> None:
    """Raises DemoFailed, CommandFailed, PackageError."""
    serving = ModelPackage.load(Path(pipeline.instance.package))
    second = narrower_package(serving, pipeline.data_dir / "narrower")
    with pipeline.client() as client:
        traffic = LiveTraffic(kafka_of(pipeline), client, input_.facts.busiest_members(_MEMBERS))
        Replacement(pipeline, traffic, print_line).run(second)


def narrower_package(package: ModelPackage, folder: Path) -> ModelPackage:
    """The same model with vectors that are cut to seven eighths of their dimension. Raises PackageError."""
    # Imported here, because it loads torch: the pipeline starts first.
    from encoders.from_hugging_face import Recipe, create_package

    manifest = package.manifest
    recipe = Recipe(
        id="narrower",
        templates=manifest.templates,
        quantiles=manifest.quantiles,
        pooling=manifest.pooling,
        dimension=max(manifest.dimension * 7 // 8, 1),
        token_limits=manifest.token_limits,
        precision=manifest.precision,
        member_form=manifest.member_form,
    )
    return create_package(package.folder, folder, recipe)


class LiveTraffic:
    """New posts and questions of members, each in a thread of its own, while `running`."""

    def __init__(self, kafka: KafkaSettings, client: RetrieverClient, members: Sequence[str]) -> None:
        self.answers: Counter[str] = Counter()
        """By the generation that gave them."""
        self.newest: str | None = None
        """The generation of the newest answer."""
        self.failures: list[str] = []
        self.num_posts = 0
        self._kafka = kafka
        self._client = client
        self._members = members
        self._stop = Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [Thread(target=target, daemon=True) for target in (self._send, self._question)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _send(self) -> None:
        with EventSender(self._kafka, options={"linger.ms": 0}) as sender:
            while not self._stop.wait(1 / _POSTS_PER_S):
                post = new_post(f"demo-live-{self.num_posts}", f"Post number {self.num_posts} while the model changes.")
                send_post(sender, post)
                self.num_posts += 1

    def _question(self) -> None:
        members = cycle(self._members)
        while not self._stop.wait(1 / _QUESTIONS_PER_S):
            try:
                answer = self._client.retrieve(RetrieveRequest(member_id=next(members)))
            except RetrieverError as error:
                self.failures.append(str(error))
            else:
                self.answers[answer.generation] += 1
                self.newest = answer.generation


class Replacement:
    """The steps on one running pipeline."""

    def __init__(self, pipeline: Pipeline, traffic: LiveTraffic, print_line: Callable[[str], None]) -> None:
        self._pipeline = pipeline
        self._traffic = traffic
        self._print = print_line

    def run(self, second: ModelPackage) -> None:
        """Raises DemoFailed, and CommandFailed if a command fails."""
        traffic, old, new = self._traffic, self._pipeline.instance.generation, second.generation
        self._print(
            f"\n6. The model is replaced by {new}, whose vectors have {second.dimension} dimensions, while "
            f"{_POSTS_PER_S:g} posts and {_QUESTIONS_PER_S:g} questions come in each second."
        )
        with traffic.running():
            began = time.monotonic()
            self._pipeline.run("generations", "build", second.folder, "--wait")
            self._print(
                f"   nearline generations build: complete after {time.monotonic() - began:.0f} s, beside {old}."
            )
            self._promote(new, holds=self._gate(new))
            self._wait_for(new, "promote")
            self._pipeline.run("generations", "rollback", "--reason", "the demo is over")
            self._wait_for(old, "rollback")
        counts = ", ".join(f"{count:,} by {generation}" for generation, count in traffic.answers.items())
        if traffic.failures or set(traffic.answers) != {old, new}:
            raise DemoFailed(f"{len(traffic.failures)} questions failed: {traffic.failures[:1]}; answers: {counts}")
        self._print(f"   Meanwhile {traffic.num_posts} posts came in, and no question failed. Answers: {counts}.")

    def _gate(self, generation: str) -> bool:
        """Whether it holds."""
        gate = self._pipeline.attempt("generations", "gate", generation)
        if gate.returncode not in (0, 1) or not gate.stdout:
            raise DemoFailed(f"the gate could not be measured: {gate.stderr}")
        self._print(f"   nearline generations gate {generation}:")
        for line in gate.stdout.splitlines():
            self._print(f"     {line}")
        return gate.returncode == 0

    def _promote(self, generation: str, *, holds: bool) -> None:
        if holds:
            self._pipeline.run("generations", "promote", generation)
            return
        self._print("   Its gate does not hold, so it is promoted by force, to show the way back.")
        self._pipeline.run("generations", "promote", generation, "--force", "--reason", "the demo shows the way back")

    def _wait_for(self, generation: str, act: str) -> None:
        """Returns when it has answered for a while."""
        began = time.monotonic()
        while self._traffic.newest != generation:
            if time.monotonic() - began > _IN_EFFECT_S:
                raise DemoFailed(f"{generation} does not answer {_IN_EFFECT_S:.0f} s after the command")
            time.sleep(0.01)
        self._print(f"   nearline generations {act}: in effect {time.monotonic() - began:.2f} s after the command.")
        time.sleep(_SERVES_S)
