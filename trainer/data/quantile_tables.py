"""Fits the quantile tables of the numbers that a prompt may hold, on what was known before the cut."""

from collections.abc import Iterable, Iterator
from typing import Final

from contexts.rows import PostRow
from encoders.package.manifest import HISTORY_AGE, POST_FIELDS
from encoders.package.quantiles import quantile_table
from encoders.prompt.prompts import age_s
from schemas.contexts import MemberContext
from schemas.ids import Micros
from trainer.data.feed import Feed
from trainer.data.replay import replay_until

_NUMBER_FIELDS: Final = tuple(field for field in POST_FIELDS if field == "age" or "." in field)


def fit_quantile_tables(posts: Iterable[PostRow]) -> dict[str, list[float]]:
    """A table for each number field of a post's template, whether a template names it or not."""
    rows = [row for row in posts if row.body is not None]
    return {field: quantile_table(_values(field, rows)) for field in _NUMBER_FIELDS}


def tables_before(feed: Feed, cut_us: Micros) -> dict[str, list[float]]:
    """All tables, also that of the ages in histories, from what was known just before the cut."""
    replay = replay_until(feed, cut_us)
    members = (replay.context(member_id, cut_us) for member_id in replay.members)
    return fit_quantile_tables(replay.posts.values()) | fit_history_ages(members)


def fit_history_ages(members: Iterable[MemberContext]) -> dict[str, list[float]]:
    """The table of the ages in histories. Empty where no member has a history."""
    ages = [age_s(entry.at_us, member.as_of_us) for member in members for entry in member.history]
    return {HISTORY_AGE: quantile_table(ages)} if ages else {}


def _values(field: str, rows: Iterable[PostRow]) -> Iterator[float]:
    kind, _, action = field.partition(".")
    for row in rows:
        assert row.body is not None
        age = age_s(row.body.created_at_us, row.state.as_of_us)
        if kind == "age":
            yield age
        else:
            count = row.state.counts.get(action, 0)
            yield count / max(age / 3600, 1.0) if kind == "rate" else count
