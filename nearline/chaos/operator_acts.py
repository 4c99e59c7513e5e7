"""Acts of an operator who is killed between any two steps: builds, promotes, rolls back and retires generations.

What is killed is the command alone. The same command is called again, and must go on from whatever the killed ones have
left. Does not know how the end is judged.
"""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, Literal, NamedTuple

from nearline.chaos.retrying import retry_while_away
from nearline.chaos.up import BreakablePipeline
from nearline.errors import NearlineError
from schemas.ids import Generation
from streams.generations.log import read_generations
from streams.kafka.crash_points import EXIT_STATUS
from streams.kafka.offsets import OffsetReader
from streams.settings import KafkaSettings

_KAFKA_CALL_S: Final = 30.0
_LEADS_TO: Final = {"build": "ready", "promote": "serving", "rollback": "kept", "retire": "retired"}
"""The state of the generation when the command has succeeded, a build's when it was waited for."""
_DIMENSIONS: Final = {"second": 32, "third": 48}
"""Of the packages that are built beside the demo's. They have its weights, and yet other vectors."""

Crashes = Mapping[str, int]
"""How often the command is killed at each crash point, in the order in which it passes them."""

_ACT: Final[Crashes] = {"generations.begun": 2, "generations.records-sent": 2, "generations.committed": 1}
"""What is done is not done again: a repeated command does not pass the last one. So everything goes round twice."""
_REMOVAL: Final[Crashes] = {
    "generations.groups-deleted": 2,
    "generations.files-removed": 2,
    "generations.topics-deleted": 2,
}
_REMOVAL_BY_BUILD: Final[Crashes] = {**_REMOVAL, "generations.topics-deleted": 1}
"""A build looks for topics to find out of which retired generations something is left."""


class Act(NamedTuple):
    verb: Literal["build", "promote", "rollback", "retire"]
    package: Literal["second", "third"]
    crashes: Crashes
    is_finished: bool = True
    """False: after the last crash the command is not called again."""


_FETCHED_AND_MADE: Final[Crashes] = {"generations.package-fetched": 2, "generations.topics-made": 2}
_ROUND: Final = (
    Act("build", "second", {**_FETCHED_AND_MADE, **_ACT}),
    Act("promote", "second", _ACT),
    Act("rollback", "second", _ACT),
    # The second one is kept now, so this build retires and removes it.
    Act("build", "third", {"generations.committed": 1, **_REMOVAL_BY_BUILD}),
    # All that it has is left. The same generation is built again, and what is left must go first.
    Act("retire", "third", {"generations.committed": 1}, is_finished=False),
    Act("build", "third", _REMOVAL_BY_BUILD),
    Act("retire", "third", {**_ACT, **_REMOVAL}),
)
ACTS: Final = (*_ROUND, *_ROUND)
"""Each crash point of each act is passed at least twice."""


class Operator:
    def __init__(self, pipeline: BreakablePipeline, folder: Path) -> None:
        """`folder` is for the packages, and is made when they are needed first."""
        self._pipeline = pipeline
        self._folder = folder
        self._generations: dict[str, Generation] = {}

    def kill(self, act: Act) -> list[str]:
        """Does the act with all its crashes, and returns their names. Raises NearlineError where a crash point is not
        passed, or the log is not what the act must lead to."""
        words = self._words(act)
        for point, number in act.crashes.items():
            for _ in range(number):
                done = self._pipeline.crash(point, *words)
                if done.returncode != EXIT_STATUS:
                    raise NearlineError(
                        f"nearline {' '.join(map(str, words))} has not passed the crash point {point}, and ended with "
                        f"{done.returncode}: {done.stderr.strip()}"
                    )
        if act.is_finished:
            self._pipeline.run(*words, *(["--wait"] if act.verb == "build" else []))
        retry_while_away(lambda: self._check(act))
        return [f"{act.verb} killed at {point}" for point, number in act.crashes.items() for _ in range(number)]

    def _words(self, act: Act) -> list[str | Path]:
        generation = self._generation(act.package)
        more: dict[str, list[str | Path]] = {
            "build": [generation, "--registry", self._registry],
            "promote": [generation, "--force", "--reason", "the adversary"],
            "rollback": [],
            "retire": [generation, "--force"],
        }
        return ["generations", act.verb, *more[act.verb]]

    def _check(self, act: Act) -> None:
        """Reading the log also checks that its records fit together."""
        kafka = KafkaSettings(bootstrap_servers=self._pipeline.instance.bootstrap_servers)
        log = read_generations(kafka)
        state = log.records[self._generation(act.package)].state
        if state != _LEADS_TO[act.verb]:
            raise NearlineError(f"after {act.verb} the {act.package} generation is {state}")
        if not act.is_finished:
            return
        with closing(OffsetReader(kafka, _KAFKA_CALL_S)) as reader:
            left = set(reader.generations()) - {record.id for record in log.live}
        if left:
            raise NearlineError(f"after {act.verb} something is left of {', '.join(sorted(left))}")

    @property
    def _registry(self) -> Path:
        return self._folder / "registry"

    def _generation(self, name: str) -> Generation:
        """Makes and publishes the package when it is needed first."""
        if name not in self._generations:
            self._generations[name] = self._publish(name)
        return self._generations[name]

    def _publish(self, name: str) -> Generation:
        # Imported here: most rounds of the adversary need no model.
        from encoders.from_hugging_face import Recipe, create_package
        from encoders.package.model_package import ModelPackage
        from trainer.publishing.registry import Registry

        source = Path(self._pipeline.instance.package)
        limits = ModelPackage.read(source).manifest.token_limits
        recipe = Recipe(id=name, dimension=_DIMENSIONS[name], token_limits=limits)
        package = create_package(source, self._folder / name, recipe)
        Registry(str(self._registry)).publish(package, {})
        return package.generation
