"""The exceptions of the embedded engine, translated."""

from collections.abc import Iterator
from contextlib import contextmanager

from indexer.errors import TierUnavailable


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Raises TierUnavailable: the tier could not be `what`. The engine raises plain exceptions, and a panic of its own
    that is no Exception."""
    try:
        yield
    except TierUnavailable:
        raise
    except Exception as error:
        raise TierUnavailable(f"the embedded cold tier could not be {what}: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise TierUnavailable(f"the embedded cold tier could not be {what}: {error}") from error
