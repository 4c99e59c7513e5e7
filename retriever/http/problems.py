"""Writes what goes wrong as RFC 9457 has it: `application/problem+json` with a status, a sentence and a code.

The handlers of exceptions are coroutines, though they wait for nothing: for a function the app would wait for a thread,
and all of its few threads may wait for the broker.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from retriever.service.problems import INTERNAL, Trouble, sentence_of, trouble_of
from schemas.api import Problem, ProblemCode

PROBLEM_JSON: Final = "application/problem+json"
STATUSES: Final[dict[ProblemCode, int]] = {
    ProblemCode.BAD_FIELD: 422,
    ProblemCode.BAD_BODY: 400,
    ProblemCode.NOT_JSON: 415,
    ProblemCode.TOO_LARGE: 413,
    ProblemCode.TOO_SLOW: 408,
    ProblemCode.NOT_FOUND: 404,
    ProblemCode.WRONG_METHOD: 405,
    ProblemCode.UNAUTHENTICATED: 401,
    ProblemCode.WRONG_HOST: 403,
    ProblemCode.UNKNOWN_GENERATION: 404,
    ProblemCode.BUSY: 429,
    ProblemCode.UNAVAILABLE: 503,
    ProblemCode.DEADLINE_EXCEEDED: 504,
    ProblemCode.INTERNAL: 500,
}
_CODES: Final = {404: ProblemCode.NOT_FOUND, 405: ProblemCode.WRONG_METHOD}


def problem(trouble: Trouble, headers: Mapping[str, str] | None = None) -> Response:
    """`Retry-After` is in whole seconds, rounded up; the body has the milliseconds."""
    status = STATUSES[trouble.code]
    headers = dict(headers or {})
    retry_after_ms = None
    if trouble.retry_after_s is not None:
        retry_after_ms = math.ceil(trouble.retry_after_s * 1000)
        headers["Retry-After"] = str(math.ceil(retry_after_ms / 1000))
    body = Problem(
        title=trouble.code.replace("_", " "),
        status=status,
        detail=trouble.sentence,
        code=trouble.code,
        retry_after_ms=retry_after_ms,
    )
    return Response(body.model_dump_json(exclude_none=True), status, headers, PROBLEM_JSON)


async def retriever_failed(_: Request, error: Exception) -> Response:
    """For errors of the retriever: no answer now, or never."""
    return problem(trouble_of(error))


async def internal_error(_: Request, __: Exception) -> Response:
    """The server logs the error."""
    return problem(Trouble(ProblemCode.INTERNAL, INTERNAL))


async def request_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if request.method == "POST" and not _is_json(request):
        sentence = "the body must be JSON; send it with the header Content-Type: application/json"
        return problem(Trouble(ProblemCode.NOT_JSON, sentence))
    first, *_ = errors = error.errors()
    if first["type"] == "json_invalid":
        return problem(Trouble(ProblemCode.BAD_BODY, f"the body is not valid JSON ({first['ctx']['error']})"))
    if first["loc"] == ("body",) and first["type"] != "value_error":
        return problem(Trouble(ProblemCode.BAD_FIELD, f"body: {first['msg']}"))
    return problem(Trouble(ProblemCode.BAD_FIELD, sentence_of(errors, skip=1)))


async def body_unreadable(_: Request, error: Exception) -> Response:
    """FastAPI has only a general sentence for a body that it cannot read. For two causes we name the cause."""
    assert isinstance(error, HTTPException)
    cause = error.__cause__
    if isinstance(cause, UnicodeDecodeError):
        sentence = f"the body is not UTF-8 (position {cause.start}); send JSON in UTF-8"
    elif isinstance(cause, RecursionError):
        sentence = "the body nests lists or objects too deeply"
    else:
        sentence = str(error.detail)
    code = _CODES.get(error.status_code, ProblemCode.BAD_BODY)
    return problem(Trouble(code, sentence), error.headers)


def described(*codes: ProblemCode) -> dict[int | str, dict[str, Any]]:
    """For FastAPI's `responses`: what a route may answer instead of its own message."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    names: dict[int, list[str]] = {}
    for code in codes:
        names.setdefault(STATUSES[code], []).append(code)
    return {status: {"description": " or ".join(names[status]), "content": content} for status in names}


def _is_json(request: Request) -> bool:
    kind, _, subtype = request.headers.get("content-type", "").partition(";")[0].strip().lower().partition("/")
    return kind == "application" and (subtype == "json" or subtype.endswith("+json"))
