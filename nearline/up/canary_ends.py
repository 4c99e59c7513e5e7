"""The two ends between which canaries travel: the topic `posts`, and a retriever.

As everywhere, the retriever is the one of the data folder, else the one that the settings name.
"""

from typing import Final

from nearline.ask.connections import own_connections
from nearline.errors import NearlineError
from nearline.monitor.canaries import Found
from nearline.settings.settings import Settings
from retriever.client import RetrieverClient
from retriever.errors import RetrieverUnavailable
from schemas import topics
from schemas.api import RetrieveRequest
from schemas.canaries import CANARY_AUTHOR, canary_id
from schemas.ids import Generation, Partition, PostId
from schemas.times import to_micros
from streams.kafka.node_id import node_id
from streams.kafka.partitions import partition_of
from streams.kafka.records import Output
from streams.kafka.sending import send_all

_SEND_S: Final = 5.0
_ANSWER_S: Final = 2.0
_MOST: Final = 2000
"""Many more than there are, also where monitors were killed."""
_QUESTION: Final = "a canary of nearline"


class CanaryEnds:
    """Implements `Ends`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def send(self, post_id: PostId, event: bytes) -> None:
        send_all(self._settings.kafka, [Output(topics.POSTS, post_id.encode(), event)], _SEND_S)

    def find(self, generation: Generation) -> Found:
        """In words, as a member may ask: the query is encoded, and both tiers are searched."""
        request = RetrieveRequest(
            text=_QUESTION,
            k=_MOST,
            generation=generation,
            columns=["created_at"],
            only_authors=[CANARY_AUTHOR],
            timeout_ms=round(_ANSWER_S * 500),
        )
        with self._retriever() as client:
            answer = client.retrieve(request)
        times_us = map(to_micros, answer.created_at or [])
        return Found(dict(zip(answer.post_ids, times_us, strict=True)), not answer.partial)

    def _retriever(self) -> RetrieverClient:
        try:
            return own_connections(self._settings).retriever(_ANSWER_S)
        except NearlineError as error:
            raise RetrieverUnavailable(str(error)) from error


def own_canaries(settings: Settings) -> list[tuple[PostId, Partition]]:
    """One for each partition of `posts`, in their order, so that each is tried in turn."""
    monitor, partitions = node_id(settings.kafka, settings.data_dir), settings.kafka.partitions
    ids: dict[Partition, PostId] = {}
    number = 0
    while len(ids) < partitions:
        post_id = canary_id(monitor, number)
        ids.setdefault(partition_of(post_id.encode(), partitions), post_id)
        number += 1
    return [(ids[partition], partition) for partition in sorted(ids)]
