"""The HTTP service: routes, and what may be answered to each.

The content of answers comes from the retriever and the hot feed. Limits, the API key, the host
that was asked and the request's id are the business of middleware: `request_limits.py`, `api_key.py`,
`host_check.py`, `tracing.py`. Knows neither tiers nor models.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import chain, islice
from typing import Annotated, Any, Final

import anyio.to_thread
from fastapi import APIRouter, FastAPI, Path, Query, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException

from retriever.errors import RetrieverError
from retriever.http.answers import write_answer, write_answers, write_vectors
from retriever.http.api_key import NEEDS_NO_KEY, ApiKeyGuard
from retriever.http.host_check import HostCheck, needs_host_check
from retriever.http.json_bodies import JsonRoute
from retriever.http.problems import body_unreadable, described, internal_error, request_invalid, retriever_failed
from retriever.http.request_limits import OPERATIONS_IN_FLIGHT, BodyLimit, OperationLimit, QuestionLimit
from retriever.http.tracing import Tracing
from retriever.service.answering import Answering, HotFeeds
from retriever.service.metrics import ServeMetrics
from retriever.service.service import Service
from retriever.settings import ServeSettings
from schemas.api import (
    HotPositions,
    HotPost,
    PostResponse,
    Problem,
    ProblemCode,
    Readiness,
    RetrieveBatchRequest,
    RetrieveBatchResponse,
    RetrieveRequest,
    RetrieveResponse,
    SimilarRequest,
    StatusResponse,
    VectorsRequest,
    VectorsResponse,
)
from schemas.ids import MAX_ID_BYTES, Generation, PostId

API_VERSION: Final = "1"
_JSON: Final = "application/json"
_NDJSON: Final = "application/x-ndjson"
_LINES_PER_CHUNK: Final = 1000
"""Many lines are sent together, because each chunk of a stream costs a switch of threads."""

_ANY: Final = (
    ProblemCode.UNAUTHENTICATED,
    ProblemCode.WRONG_HOST,
    ProblemCode.TOO_SLOW,
    ProblemCode.TOO_LARGE,
    ProblemCode.BUSY,
)
"""Every route under /v1 may give these answers."""
_NO_ANSWER: Final = (
    ProblemCode.BAD_FIELD,
    ProblemCode.UNKNOWN_GENERATION,
    ProblemCode.NOT_FOUND,
    ProblemCode.UNAVAILABLE,
    ProblemCode.DEADLINE_EXCEEDED,
)
_OF_GENERATION: Final = (ProblemCode.BAD_FIELD, ProblemCode.UNKNOWN_GENERATION, ProblemCode.UNAVAILABLE)
_BAD_BODY: Final = (ProblemCode.BAD_BODY, ProblemCode.NOT_JSON)

_NamedGeneration = Annotated[Generation | None, Query(min_length=1, max_length=MAX_ID_BYTES)]
"""None: the serving one."""


class _AnyConvertor(PathConvertor):
    """Matches any post id. Starlette's own `path` convertor does not match line ends, which an id may contain."""

    regex = "(?s:.*)"


register_url_convertor("any", _AnyConvertor())


def create_app(  # noqa: PLR0917
    service: Service,
    retriever: Answering,
    feeds: HotFeeds,
    status: Callable[[], StatusResponse],
    metrics: ServeMetrics,
    settings: ServeSettings,
    standing_still: Callable[[], Sequence[str]] = tuple,
) -> FastAPI:
    """`status` is called in a thread for each request to /v1/status, and may block for seconds. `standing_still` gives
    a sentence for each stage that stands still, and must not block."""
    # No page with docs, because it would load scripts from other sites.
    app = FastAPI(
        title="nearline retriever",
        version=API_VERSION,
        openapi_url=None,  # `_description_route` serves our description, which is made once
        docs_url=None,
        redoc_url=None,
        lifespan=_with_worker_threads(OPERATIONS_IN_FLIGHT),
        generate_unique_id_function=_operation_id,
    )
    app.include_router(_health_routes(retriever, metrics, standing_still))
    app.include_router(_retrieval_routes(service), prefix="/v1")
    app.include_router(_operations_routes(retriever, feeds, status), prefix="/v1")
    # The middleware that is added last runs first. So no body is read without a valid key, and a request takes a place
    # only when its body is complete.
    app.add_middleware(OperationLimit)
    app.add_middleware(QuestionLimit, check_room=lambda: service.check_room(None))
    app.add_middleware(BodyLimit)
    app.add_middleware(ApiKeyGuard, key=settings.api_key)
    if needs_host_check(settings):
        app.add_middleware(HostCheck)
    app.add_middleware(Tracing)
    app.add_exception_handler(RequestValidationError, request_invalid)
    app.add_exception_handler(HTTPException, body_unreadable)
    app.add_exception_handler(RetrieverError, retriever_failed)
    app.add_exception_handler(Exception, internal_error)
    app.include_router(_description_route(describe(app)))
    return app


def _operation_id(route: APIRoute) -> str:
    """Generators of clients make names of methods of it."""
    return route.name


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description of the routes. The routes do not know of the API key, so the two ways to send the key are
    added here."""
    description = get_openapi(title=app.title, version=app.version, routes=app.routes)
    description["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    description["components"]["schemas"] |= {**schema.pop("$defs"), "Problem": schema}
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


def _health_routes(
    retriever: Answering, metrics: ServeMetrics, standing_still: Callable[[], Sequence[str]]
) -> APIRouter:
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
        return Readiness(
            ready=not problems,
            problems=problems,
            beside=dict(retriever.beside()),
            standing_still=list(standing_still()),
        )

    @router.get("/metrics", summary="For Prometheus", response_class=Response)
    async def prometheus() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router


def _retrieval_routes(service: Service) -> APIRouter:
    """These routes are coroutines: the service has its own threads, and a queue before them."""
    router = APIRouter(route_class=JsonRoute, tags=["retrieval"], responses=described(*_ANY, *_NO_ANSWER))
    with_body = described(*_BAD_BODY)

    @router.post(
        "/retrieve",
        summary="The candidates of a member, a text, a vector or posts",
        response_model=RetrieveResponse,
        responses=with_body,
    )
    async def retrieve(request: RetrieveRequest) -> Response:
        return _json(await service.retrieve(request, write_answer))

    @router.post(
        "/retrieve/batch",
        summary="Up to 64 questions at once",
        response_model=RetrieveBatchResponse,
        responses=with_body,
    )
    async def retrieve_batch(request: RetrieveBatchRequest) -> Response:
        return _json(await service.retrieve_batch(request, write_answers))

    @router.post(
        "/similar",
        summary="The posts that are nearest to the given posts",
        response_model=RetrieveResponse,
        responses=with_body,
    )
    async def similar(request: SimilarRequest) -> Response:
        return _json(await service.similar(request, write_answer))

    @router.post(
        "/vectors", summary="The vectors of up to 1,000 posts", response_model=VectorsResponse, responses=with_body
    )
    async def vectors(request: VectorsRequest) -> Response:
        return _json(await service.vectors(request, write_vectors))

    @router.get("/posts/{post_id:any}", summary="One post as each tier holds it")
    async def post(post_id: Annotated[str, Path(min_length=1, max_length=MAX_ID_BYTES)]) -> PostResponse:
        return await service.post(PostId(post_id))

    return router


def _operations_routes(retriever: Answering, feeds: HotFeeds, status: Callable[[], StatusResponse]) -> APIRouter:
    router = APIRouter(tags=["operations"], responses=described(*_ANY))

    @router.get("/status", name="status", summary="Processes, lag, tiers, freshness")
    def status_() -> StatusResponse:
        return status()

    @router.get("/hot/positions", summary="How far the hot tier has read", responses=described(*_OF_GENERATION))
    def hot_positions(generation: _NamedGeneration = None) -> HotPositions:
        return feeds.progress(generation)

    @router.get(
        "/hot/posts",
        summary="All live posts of the hot tier, one JSON object a line",
        response_class=StreamingResponse,
        responses={
            200: {"content": {_NDJSON: {"schema": HotPost.model_json_schema()}}},
            **described(*_OF_GENERATION),
        },
    )
    def hot_posts(generation: _NamedGeneration = None) -> StreamingResponse:
        lines = _ndjson(retriever.hot_posts(generation))
        # The first ones before the answer begins: what goes wrong later only breaks it off.
        first = list(islice(lines, 1))
        return StreamingResponse(chain(first, lines), media_type=_NDJSON)

    return router


def _json(body: bytes) -> Response:
    return Response(body, media_type=_JSON)


def _ndjson(posts: Iterator[HotPost]) -> Iterator[str]:
    while chunk := list(islice(posts, _LINES_PER_CHUNK)):
        yield "".join(post.model_dump_json() + "\n" for post in chunk)


def _with_worker_threads(number: int) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Gives the app this many worker threads: one for each operation, so that none waits for a thread."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = number
        yield

    return lifespan
