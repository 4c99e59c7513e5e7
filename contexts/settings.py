"""The numbers that shape contexts. The trainer uses the same ones."""

from pydantic import BaseModel, ConfigDict, Field


class ContextRules(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    positive_dwell_ms: int = Field(10_000, ge=0)
    """A dwell of at least this long is a positive action."""
    history_entries: int = Field(50, ge=1)
    history_text_chars: int = Field(200, ge=1)
    acted_ids: int = Field(2_000, ge=0)
    hidden_ids: int = Field(2_000, ge=0)
    seen: int = Field(0, ge=0, le=10_000)
    """So many of the posts that a member was shown last (impressions) are kept and travel with the member's vector, for
    questions with `hide_seen`. 0: none are kept. Each takes a record of the topic `actions-by-member`."""
    waiting_actions: int = Field(100, ge=0)
    """At most this many actions wait in a post's row for the post to be created."""
    waiting_posts: int = Field(2_000, ge=1)
    """Actions of one member wait in the rows of at most this many posts. The member's row remembers them, so that a
    deletion of the member can have the actions erased."""
    waiting_s: float = Field(7 * 24 * 3600.0, gt=0)
    """An action that has waited this long for its post becomes a dead letter."""
    recipients: int = Field(1_000, ge=0)
    """A post's row remembers this many members, so that a deleted post can be taken out of their histories."""
    history_window_s: float = Field(10.0, ge=0)
    """A member's history is published at most once in this time."""
    counts_window_s: float = Field(60.0, ge=0)
    """A post's counts are published at most once in this time, unless the post itself changes."""
