"""Numbers that shape contexts. The trainer reads the same ones."""

from pydantic import BaseModel, ConfigDict, Field


class ContextRules(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    positive_dwell_ms: int = Field(10_000, ge=0)
    """A dwell of at least this long is a positive action."""
    history_entries: int = Field(50, ge=1)
    history_text_chars: int = Field(200, ge=1)
    acted_ids: int = Field(2_000, ge=0)
    hidden_ids: int = Field(2_000, ge=0)
    waiting_actions: int = Field(100, ge=0)
    """Activity that waits in a post's row for the post to be created."""
    waiting_posts: int = Field(2_000, ge=1)
    """Posts in whose rows activity of one member may wait; the member's row remembers them, to have it erased."""
    waiting_s: float = Field(7 * 24 * 3600.0, gt=0)
    recipients: int = Field(1_000, ge=0)
    """Members that a post row remembers, to take a deleted post out of their histories."""
    history_window_s: float = Field(10.0, ge=0)
    """At most one publication of a member's history in this time."""
    counts_window_s: float = Field(60.0, ge=0)
    """At most one publication of a post's counts in this time."""
