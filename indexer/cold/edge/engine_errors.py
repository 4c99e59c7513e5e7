"""Translates the exceptions of the embedded engine."""

from collections.abc import Iterator
from contextlib import contextmanager

from indexer.errors import TierUnavailable


@contextmanager
def engine_errors(action: str) -> Iterator[None]:
    """Raises TierUnavailable: "the embedded cold tier could not be `action`", such as "opened".

    The engine raises plain exceptions. When it panics it raises PanicException, which is a BaseException only."""
    try:
        yield
    except TierUnavailable:
        raise
    except Exception as error:
        raise TierUnavailable(f"the embedded cold tier could not be {action}: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise TierUnavailable(f"the embedded cold tier could not be {action}: {error}") from error
