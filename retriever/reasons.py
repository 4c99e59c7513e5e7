"""Why an answer is as it is: codes for programs and sentences for people. The feed and the answers both give reasons,
so this module knows neither."""

from enum import StrEnum
from typing import NamedTuple


class Code(StrEnum):
    """Why an answer is as it is. Clients decide by these codes, so none of them is ever renamed."""

    HOT_CATCHING_UP = "hot_catching_up"
    """The hot feed has not read the topic's newest records since the start. Partial."""
    HOT_BEHIND = "hot_behind"
    """The hot feed has not reached the end of the topic for a while, or cannot ask where it is. Partial."""
    HOT_UNAVAILABLE = "hot_unavailable"
    """The hot tier failed. Partial."""
    COLD_BEHIND = "cold_behind"
    """In some partition the hot tier begins after what the cold tier has written, so posts between may be missing.
    Partial."""
    COLD_LATE = "cold_late"
    """The cold tier did not answer within the question's deadline. Partial."""
    COLD_UNAVAILABLE = "cold_unavailable"
    """The cold tier failed, or it has failed so often that it is not asked for a while. Partial."""
    MODEL_UNAVAILABLE = "model_unavailable"
    """There is no model to encode the text. Partial."""
    MEMBER_UNAVAILABLE = "member_unavailable"
    """The member cannot be looked up, so no posts are given: any of them may be one that the member hid. Partial."""
    MEMBER_UNKNOWN = "member_unknown"
    """The member was never written, or is deleted. The answer is whole."""
    MEMBER_WITHOUT_VECTOR = "member_without_vector"
    """The member has neither a profile nor a history. The answer is whole."""
    TRENDING = "trending"
    """The candidates are what is popular now, because there is no vector. The answer is whole."""
    NOTHING_TRENDING = "nothing_trending"
    """Nothing is popular now. The answer is whole and empty."""
    POSTS_UNKNOWN = "posts_unknown"
    """Some of the posts to which others shall be similar are unknown or deleted. The answer is whole."""


class Reason(NamedTuple):
    code: Code
    detail: str
    """One sentence for people. Holds no path and no address."""
