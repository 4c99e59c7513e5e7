"""Which activity counts as positive and so makes history. The trainer asks the same question."""

from typing import Final

from contexts.settings import ContextRules
from schemas.hops import PostActivity

_POSITIVE: Final = frozenset(("click", "like", "comment", "share", "follow"))


def is_positive(activity: PostActivity, rules: ContextRules) -> bool:
    """A dwell is positive if it was long enough; one without a length is not."""
    if activity.action == "dwell":
        return (activity.dwell_ms or 0) >= rules.positive_dwell_ms
    return activity.action in _POSITIVE
