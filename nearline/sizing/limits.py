"""What does not grow any further, from how many posts/s on, and what to do then. Pure."""

from typing import Final, NamedTuple

from nearline.sizing import figures
from nearline.sizing.sizes import (
    DAY_S,
    HOT_WINDOW_S,
    NODE_BYTES,
    PARTITIONS,
    SEARCH_S,
    SPARE,
    Load,
    cold_point_bytes,
    contexts_rate,
    hot_post_bytes,
    scan_s,
    size,
    worker_tokens,
)

_SHORT_WINDOW_S: Final = 3600.0


class Limit(NamedTuple):
    posts_per_s: float
    what: str
    mend: str


def limits(load: Load) -> list[Limit]:
    """The lowest first. All else of the load stays in proportion, but the members."""
    points = min(SEARCH_S / scan_s(load), NODE_BYTES / cold_point_bytes(load)) - load.members
    hot_posts = load.hot_gb * 1e9 / hot_post_bytes(load)
    events_per_post = 1 + load.activity_per_post
    tokens_per_post = _tokens_per_post(load)
    contexts = contexts_rate() / SPARE / events_per_post
    trending = figures.TRENDING_EVENTS_PER_S.value / SPARE / max(load.activity_per_post, 1e-9)
    encode = worker_tokens(load) / SPARE / tokens_per_post
    found = [
        Limit(encode, "one encode worker", "more of them, or a GPU; a smaller package; no counts in its template"),
        Limit(
            max(0.0, points) / (DAY_S * load.corpus_days),
            f"one node of the cold tier: a search takes {SEARCH_S:g} s, or its memory is full",
            "a Qdrant cluster (cold.shards, cold.replication); a graph (cold.graph_m = 16) from some ten million posts "
            "a node on; fewer days",
        ),
        Limit(contexts, "one context worker", "more workers, at most one for each partition"),
        Limit(trending, "one trending worker", "more workers, at most one for each partition"),
        Limit(
            hot_posts / HOT_WINDOW_S,
            f"the hot tier holds 48 h in {load.hot_gb:g} GB",
            "more memory or a GPU; a shorter hot.window_s is right too, as long as the index is never further behind",
        ),
        Limit(
            hot_posts / _SHORT_WINDOW_S,
            f"the hot tier holds an hour in {load.hot_gb:g} GB",
            "several instances, each for a part of the posts, with a merge before them: nearline has none",
        ),
        Limit(
            PARTITIONS[-1] * min(contexts, encode, trending),
            f"{PARTITIONS[-1]} partitions with a worker each",
            "quicker encode workers first; then several instances, each for a part of the posts",
        ),
    ]
    return sorted(found)


def next_limits(load: Load, times: float = 10.0) -> list[Limit]:
    """Those that are met on the way to so many times as many posts."""
    return [limit for limit in limits(load) if load.posts_per_s < limit.posts_per_s <= times * load.posts_per_s]


def _tokens_per_post(load: Load) -> float:
    return size(load).tokens_per_s / load.posts_per_s
