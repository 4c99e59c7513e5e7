"""Fits the quantile tables of the numbers that a prompt may hold, on what was known before the cut."""

from collections.abc import Iterable, Iterator
from typing import Final

from contexts.rows import PostRow
from encoders.package.manifest import POST_FIELDS
from encoders.package.quantiles import quantile_table
from encoders.prompt.prompts import age_s

_NUMBER_FIELDS: Final = tuple(field for field in POST_FIELDS if field == "age" or "." in field)


def fit_quantile_tables(posts: Iterable[PostRow]) -> dict[str, list[float]]:
    """A table for each number field of a post's template, whether a template names it or not."""
    rows = [row for row in posts if row.body is not None]
    return {field: quantile_table(_values(field, rows)) for field in _NUMBER_FIELDS}


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
