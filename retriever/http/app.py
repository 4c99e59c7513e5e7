"""The HTTP service. Knows requests, answers and status codes; what they say comes from the retriever and the feed."""

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
from retriever.http.api_key import HEALTH, ApiKeyGuard
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
_LINES: Final = "application/x-ndjson"
_LINES_AT_ONCE: Final = 1000
"""Each piece of a stream costs a change of threads."""

_WRONG: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Failure, "description": "The body cannot be read"},
    415: {"model": Failure, "description": "The body does not say that it is JSON"},
    422: {"model": Failure, "description": "The field that is wrong"},
}
_LATER: Final[dict[int | str, dict[str, Any]]] = {503: {"model": Failure, "description": "No answer now; try again"}}
_LIMITS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": Failure, "description": "The API key is missing or wrong"},
    408: {"model": Failure, "description": "The request did not come in in time"},
    413: {"model": Failure, "description": "The request is too large"},
    429: {"model": Failure, "description": "Too many requests in hand; try again after Retry-After seconds"},
}
"""What stands before the routes may answer to any of them."""


class _AnyConvertor(PathConvertor):
    """A post id may hold anything, line ends too; starlette's own `path` does not match those."""

    regex = "(?s:.*)"


register_url_convertor("any", _AnyConvertor())


def create_app(
    retriever: Retriever, feed: HotFeed, status: Callable[[], StatusResponse], settings: ServeSettings
) -> FastAPI:
    """`status` is called in a thread for each request of /v1/status and may block for seconds."""
    metrics = ServeMetrics(retriever, feed)
    # No page with docs: it would load scripts from elsewhere.
    app = FastAPI(
        title="nearline retriever",
        version=API_VERSION,
        openapi_url=None,  # ours is made once, below
        docs_url=None,
        redoc_url=None,
        lifespan=_threads(settings.in_flight + OPERATIONS_IN_FLIGHT),
    )
    app.include_router(_health(retriever, metrics))
    app.include_router(_questions(retriever, metrics), prefix="/v1")
    app.include_router(_operations(retriever, feed, status), prefix="/v1")
    # The last one added is the first that a request meets: no key, no body; no whole body, no place.
    app.add_middleware(InFlight, questions=settings.in_flight, count_refused=metrics.count_refused)
    app.add_middleware(BodyLimit)
    app.add_middleware(ApiKeyGuard, key=settings.api_key)
    app.add_exception_handler(RequestValidationError, _wrong_request)
    app.add_exception_handler(HTTPException, _unreadable)
    app.add_exception_handler(RequestRefused, _refused)
    app.add_exception_handler(RetrieverUnavailable, _unavailable)
    app.add_exception_handler(Exception, _failed)
    app.include_router(_description(describe(app)))
    return app


def describe(app: FastAPI) -> dict[str, Any]:
    """OpenAPI, with the two ways to send the key; the guard stands before the routes, which do not know it."""
    description = get_openapi(title=app.title, version=app.version, routes=app.routes)
    description["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, methods in description["paths"].items():
        for operation in methods.values():
            operation["security"] = [] if path in HEALTH else [{}, {"bearer": []}, {"header": []}]
    return description


def _description(description: dict[str, Any]) -> APIRouter:
    router = APIRouter()
    body = json.dumps(description).encode()

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(body, media_type=_JSON)

    return router


def _health(retriever: Retriever, metrics: ServeMetrics) -> APIRouter:
    """Coroutines: they answer also while all threads are busy."""
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


def _questions(retriever: Retriever, metrics: ServeMetrics) -> APIRouter:
    router = APIRouter(tags=["retrieval"], responses={**_LIMITS, **_WRONG, **_LATER})

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


def _operations(retriever: Retriever, feed: HotFeed, status: Callable[[], StatusResponse]) -> APIRouter:
    router = APIRouter(tags=["operations"], responses=_LIMITS)

    @router.get("/status", summary="Processes, lag, tiers, freshness")
    def whole_status() -> StatusResponse:
        return status()

    @router.get("/hot/positions", summary="How far the hot tier has read")
    def positions() -> HotPositions:
        return feed.positions()

    @router.get(
        "/hot/posts",
        summary="All live posts of the hot tier, one JSON object a line",
        response_class=StreamingResponse,
        responses={200: {"content": {_LINES: {"schema": HotPost.model_json_schema()}}}},
    )
    def hot_posts() -> StreamingResponse:
        return StreamingResponse(_lines(retriever.hot_posts()), media_type=_LINES)

    return router


def _lines(posts: Iterator[HotPost]) -> Iterator[str]:
    while some := list(islice(posts, _LINES_AT_ONCE)):
        yield "".join(post.model_dump_json() + "\n" for post in some)


def _threads(number: int) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """One for each request in hand, so that none that was let in waits for a thread."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = number
        yield

    return lifespan


def _failure(status: int, sentence: str) -> JSONResponse:
    return JSONResponse(Failure(detail=sentence).model_dump(), status)


def _wrong_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if request.method == "POST" and not _says_json(request):
        return _failure(415, "the body must be JSON and say so; send content-type: application/json")
    return _failure(422, "; ".join(_field_sentence(one) for one in error.errors()))


def _says_json(request: Request) -> bool:
    kind, _, subtype = request.headers.get("content-type", "").partition(";")[0].strip().lower().partition("/")
    return kind == "application" and (subtype == "json" or subtype.endswith("+json"))


async def _unreadable(request: Request, error: Exception) -> Response:
    """FastAPI has one sentence for all bodies that it cannot parse."""
    assert isinstance(error, HTTPException)
    cause = error.__cause__
    if isinstance(cause, UnicodeDecodeError):
        return _failure(400, f"the body is not UTF-8 (position {cause.start}); send JSON in UTF-8")
    if isinstance(cause, RecursionError):
        return _failure(400, "the body holds lists or objects inside each other too deep")
    return await http_exception_handler(request, error)


def _field_sentence(error: Any) -> str:
    """pydantic's words with the field in front: `k: Input should be less than or equal to 2048`."""
    if error["type"] == "json_invalid":
        return f"the body is not valid JSON ({error['ctx']['error']})"
    place = ".".join(str(part) for part in error["loc"][1:])
    words = str(error["msg"]).removeprefix("Value error, ")
    if error["loc"] == ("body",) and error["type"] != "value_error":
        return f"body: {words}"
    return f"{place}: {words}" if place else words


def _refused(_: Request, error: Exception) -> Response:
    return _failure(422, str(error))


def _unavailable(_: Request, error: Exception) -> Response:
    return _failure(503, str(error))


def _failed(_: Request, error: Exception) -> Response:
    """The server logs the error itself; it may hold what is nobody's business."""
    return _failure(500, "the retriever failed on this request; its log says why")
