"""The HTTP service: routes, status codes and error sentences.

The content of answers comes from the retriever and the hot feed. Limits and the API key are checked by middleware, in
`request_limits.py` and `api_key.py`. Knows neither tiers nor models.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import islice
from typing import Annotated, Any, Final

import anyio.to_thread
from fastapi import APIRouter, FastAPI, Path, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException

from retriever.answer.retriever import Retriever
from retriever.errors import RequestRefused, RetrieverUnavailable
from retriever.feed.hot_feed import HotFeed
from retriever.http.api_key import NEEDS_NO_KEY, ApiKeyGuard
from retriever.http.metrics import ServeMetrics
from retriever.http.request_limits import OPERATIONS_IN_FLIGHT, BodyLimit, InFlight
from retriever.settings import ServeSettings
from schemas.api import (
    Failure,
    HotPositions,
    HotPost,
    PostResponse,
    Readiness,
    RetrieveRequest,
    RetrieveResponse,
    StatusResponse,
)
from schemas.ids import MAX_ID_BYTES, PostId

API_VERSION: Final = "1"
_JSON: Final = "application/json"
_NDJSON: Final = "application/x-ndjson"
_LINES_PER_CHUNK: Final = 1000
"""Many lines are sent together, because each chunk of a stream costs a switch of threads."""

_BAD_REQUEST: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Failure, "description": "The body cannot be read"},
    415: {"model": Failure, "description": "The body does not say that it is JSON"},
    422: {"model": Failure, "description": "The field that is wrong"},
}
_NO_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    503: {"model": Failure, "description": "No answer now; try again"}
}
_REFUSED_BY_MIDDLEWARE: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": Failure, "description": "The API key is missing or wrong"},
    408: {"model": Failure, "description": "The request did not arrive in time"},
    413: {"model": Failure, "description": "The request is too large"},
    429: {"model": Failure, "description": "Too many requests at the same time; try again after Retry-After seconds"},
}
"""Every route under /v1 may give these answers."""


class _AnyConvertor(PathConvertor):
    """Matches any post id. Starlette's own `path` convertor does not match line ends, which an id may contain."""

    regex = "(?s:.*)"


register_url_convertor("any", _AnyConvertor())


def create_app(
    retriever: Retriever, feed: HotFeed, status: Callable[[], StatusResponse], settings: ServeSettings
) -> FastAPI:
    """`status` is called in a thread for each request to /v1/status, and may block for seconds."""
    metrics = ServeMetrics(retriever, feed)
    # No page with docs, because it would load scripts from other sites.
    app = FastAPI(
        title="nearline retriever",
        version=API_VERSION,
        openapi_url=None,  # `_description_route` serves our description, which is made once
        docs_url=None,
        redoc_url=None,
        lifespan=_with_worker_threads(settings.in_flight + OPERATIONS_IN_FLIGHT),
    )
    app.include_router(_health_routes(retriever, metrics))
    app.include_router(_retrieval_routes(retriever, metrics), prefix="/v1")
    app.include_router(_operations_routes(retriever, feed, status), prefix="/v1")
    # The middleware that is added last runs first. So no body is read without a valid key, and a request counts as in
    # flight only when its body is complete.
    app.add_middleware(InFlight, questions=settings.in_flight, count_refused=metrics.count_refused)
    app.add_middleware(BodyLimit)
    app.add_middleware(ApiKeyGuard, key=settings.api_key)
    app.add_exception_handler(RequestValidationError, _request_invalid)
    app.add_exception_handler(HTTPException, _body_unreadable)
    app.add_exception_handler(RequestRefused, _request_refused)
    app.add_exception_handler(RetrieverUnavailable, _retriever_unavailable)
    app.add_exception_handler(Exception, _internal_error)
    app.include_router(_description_route(describe(app)))
    return app


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description of the routes. The routes do not know of the API key, so the two ways to send the key are
    added here."""
    description = get_openapi(title=app.title, version=app.version, routes=app.routes)
    description["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, methods in description["paths"].items():
        for operation in methods.values():
            operation["security"] = [] if path in NEEDS_NO_KEY else [{}, {"bearer": []}, {"header": []}]
    return description


def _description_route(description: dict[str, Any]) -> APIRouter:
    router = APIRouter()
    body = json.dumps(description).encode()

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(body, media_type=_JSON)

    return router


def _health_routes(retriever: Retriever, metrics: ServeMetrics) -> APIRouter:
    """These routes are coroutines, so that they answer even while all worker threads are busy."""
    router = APIRouter(tags=["health"])

    @router.get("/livez", summary="The process answers")
    async def livez() -> dict[str, bool]:
        return {"alive": True}

    @router.get(
        "/readyz", summary="The model is warm and the hot tier has caught up", responses={503: {"model": Readiness}}
    )
    async def readyz(response: Response) -> Readiness:
        problems = retriever.problems()
        response.status_code = 503 if problems else 200
        return Readiness(ready=not problems, problems=problems)

    @router.get("/metrics", summary="For Prometheus", response_class=Response)
    async def prometheus() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router


def _retrieval_routes(retriever: Retriever, metrics: ServeMetrics) -> APIRouter:
    router = APIRouter(tags=["retrieval"], responses={**_REFUSED_BY_MIDDLEWARE, **_BAD_REQUEST, **_NO_ANSWER})

    @router.post("/retrieve", summary="The candidates of a member or a text", response_model=RetrieveResponse)
    def retrieve(request: RetrieveRequest) -> Response:
        try:
            answer = retriever.retrieve(request)
        except RetrieverUnavailable:
            metrics.count_unavailable()
            raise
        metrics.count(answer)
        return Response(answer.model_dump_json(), media_type=_JSON)

    @router.get("/posts/{post_id:any}", summary="One post as each tier holds it")
    def post(post_id: Annotated[str, Path(min_length=1, max_length=MAX_ID_BYTES)]) -> PostResponse:
        return retriever.post(PostId(post_id))

    return router


def _operations_routes(retriever: Retriever, feed: HotFeed, status: Callable[[], StatusResponse]) -> APIRouter:
    router = APIRouter(tags=["operations"], responses=_REFUSED_BY_MIDDLEWARE)

    @router.get("/status", summary="Processes, lag, tiers, freshness")
    def whole_status() -> StatusResponse:
        return status()

    @router.get("/hot/positions", summary="How far the hot tier has read")
    def positions() -> HotPositions:
        return feed.progress()

    @router.get(
        "/hot/posts",
        summary="All live posts of the hot tier, one JSON object a line",
        response_class=StreamingResponse,
        responses={200: {"content": {_NDJSON: {"schema": HotPost.model_json_schema()}}}},
    )
    def hot_posts() -> StreamingResponse:
        return StreamingResponse(_ndjson(retriever.hot_posts()), media_type=_NDJSON)

    return router


def _ndjson(posts: Iterator[HotPost]) -> Iterator[str]:
    while chunk := list(islice(posts, _LINES_PER_CHUNK)):
        yield "".join(post.model_dump_json() + "\n" for post in chunk)


def _with_worker_threads(number: int) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Gives the app this many worker threads: one for each request in flight, so that no request waits for a thread."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = number
        yield

    return lifespan


def _failure(status: int, sentence: str) -> JSONResponse:
    return JSONResponse(Failure(detail=sentence).model_dump(), status)


def _request_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if request.method == "POST" and not _is_json(request):
        return _failure(415, "the body must be JSON; send it with the header Content-Type: application/json")
    return _failure(422, "; ".join(_field_sentence(details) for details in error.errors()))


def _is_json(request: Request) -> bool:
    kind, _, subtype = request.headers.get("content-type", "").partition(";")[0].strip().lower().partition("/")
    return kind == "application" and (subtype == "json" or subtype.endswith("+json"))


async def _body_unreadable(request: Request, error: Exception) -> Response:
    """FastAPI has only a general sentence for a body that it cannot read. For two causes we name the cause."""
    assert isinstance(error, HTTPException)
    cause = error.__cause__
    if isinstance(cause, UnicodeDecodeError):
        return _failure(400, f"the body is not UTF-8 (position {cause.start}); send JSON in UTF-8")
    if isinstance(cause, RecursionError):
        return _failure(400, "the body nests lists or objects too deeply")
    return await http_exception_handler(request, error)


def _field_sentence(details: Any) -> str:
    """pydantic's message, after the name of the field: `k: Input should be less than or equal to 2048`."""
    if details["type"] == "json_invalid":
        return f"the body is not valid JSON ({details['ctx']['error']})"
    field = ".".join(str(part) for part in details["loc"][1:])
    sentence = str(details["msg"]).removeprefix("Value error, ")
    if details["loc"] == ("body",) and details["type"] != "value_error":
        return f"body: {sentence}"
    return f"{field}: {sentence}" if field else sentence


def _request_refused(_: Request, error: Exception) -> Response:
    return _failure(422, str(error))


def _retriever_unavailable(_: Request, error: Exception) -> Response:
    return _failure(503, str(error))


def _internal_error(_: Request, error: Exception) -> Response:
    """The server logs the error. The client does not get it, because it may hold private data."""
    return _failure(500, "the retriever failed on this request; its log says why")
