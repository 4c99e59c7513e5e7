"""What the checks of one gate have in common: the generation, the serving one, and where both can be asked."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from nearline.ask.connections import Connections
from nearline.gate.complete import Population, populations
from nearline.gate.versions import TopicVersions, embedding_head
from nearline.settings.settings import Settings
from schemas import topics
from schemas.generations import GenerationRecord
from schemas.ids import Generation, Kind

if TYPE_CHECKING:
    from trainer.data.feed import Feed


@dataclass(frozen=True)
class Subject:
    connections: Connections
    record: GenerationRecord
    serving: GenerationRecord
    read_feed: "Callable[[], Feed]"
    """The actions by which both packages are compared."""

    @property
    def settings(self) -> Settings:
        return self.connections.settings

    @cached_property
    def populations(self) -> list[Population]:
        """Read by the first check, and read on by later ones."""
        return populations(self.connections.kafka, self.record.id, self.record.contexts)

    def vectors(self, kind: Kind, generation: Generation) -> TopicVersions:
        """Of either generation; read on by whoever needs it."""
        if (kind, generation) not in self._vectors:
            topic = topics.embeddings(kind, generation)
            self._vectors[kind, generation] = TopicVersions(self.connections.kafka, topic, embedding_head)
        return self._vectors[kind, generation]

    @cached_property
    def _vectors(self) -> dict[tuple[Kind, Generation], TopicVersions]:
        return {(each.kind, self.record.id): each.vectors for each in self.populations}
