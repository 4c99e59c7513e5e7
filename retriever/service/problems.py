"""What goes wrong with a request, as both ways in tell it: a code, a sentence, and when to try again."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog
from pydantic import ValidationError

from retriever.errors import RequestRefused, RetrieverError, RetrieverUnavailable
from schemas.api import ProblemCode

INTERNAL: Final = "the retriever failed on this request; its log says why"
"""The client does not get the error itself, because it may hold private data."""
_MOST_ERRORS: Final = 8
_MOST_NAME_CHARS: Final = 64
"""Of a field that is not known, and has any name that the client likes."""

_CODES: Final = frozenset(ProblemCode)

_log = structlog.get_logger(__name__)


class Trouble(NamedTuple):
    code: ProblemCode
    sentence: str
    retry_after_s: float | None = None


def trouble_of(error: Exception) -> Trouble:
    """Logs an error that is a mistake of ours."""
    if isinstance(error, ValidationError):
        return Trouble(ProblemCode.BAD_FIELD, sentence_of(error.errors(include_url=False, include_input=False)))
    if isinstance(error, RetrieverUnavailable):
        return Trouble(_code(error, ProblemCode.UNAVAILABLE), str(error), error.retry_after_s)
    if isinstance(error, RequestRefused):
        return Trouble(_code(error, ProblemCode.BAD_FIELD), str(error))
    _log.error("a request failed", exc_info=error)
    return Trouble(ProblemCode.INTERNAL, INTERNAL)


def _code(error: RetrieverError, otherwise: ProblemCode) -> ProblemCode:
    """The retriever may have given the code of a reason, such as cold_late. The sentence says the same."""
    return ProblemCode(error.code) if error.code in _CODES else otherwise


def sentence_of(errors: Sequence[Mapping[str, Any]], skip: int = 0) -> str:
    """pydantic's first errors, each after the name of its field: `k: Input should be less than or equal to 2048`. There
    may be one for each of 10,000 ids, and gRPC sends no sentence of more than a few kilobytes. `skip`: how many parts
    of each place are not the message's."""
    sentence = "; ".join(_field_sentence(details, skip) for details in errors[:_MOST_ERRORS])
    further = len(errors) - _MOST_ERRORS
    return f"{sentence}; and {further} more errors" if further > 0 else sentence


def _field_sentence(details: Mapping[str, Any], skip: int) -> str:
    field = ".".join(str(part)[:_MOST_NAME_CHARS] for part in details["loc"][skip:])
    sentence = str(details["msg"]).removeprefix("Value error, ")
    return f"{field}: {sentence}" if field else sentence
