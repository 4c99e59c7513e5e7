"""The texts of posts, from the newest contexts: no tier holds texts."""

from collections.abc import Sequence
from typing import Final

from nearline.ask.connections import Connections
from schemas.contexts import decode_post_context
from schemas.topics import context_names
from streams.kafka.reading import newest_values

Texts = dict[str, str]
"""By post id."""

MAX_CONTEXTS: Final = 100_000
"""How many contexts are read at most to find the texts. That takes about a second and 100 MB."""
_TIMEOUT_S: Final = 2.0


def read_texts(
    connections: Connections, post_ids: Sequence[str], max_contexts: int = MAX_CONTEXTS, timeout_s: float = _TIMEOUT_S
) -> Texts:
    """Those that can be found. Raises NearlineError, RetrieverError, StreamsError, BadRecord."""
    topic = context_names(connections.context_version).post_contexts
    keys = [post_id.encode() for post_id in post_ids]
    bodies = newest_values(connections.kafka, topic, keys, max_offsets=max_contexts, timeout_s=timeout_s)
    return {key.decode(): decode_post_context(body).text for key, body in bodies.items()}
