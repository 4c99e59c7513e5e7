"""Refuses who asks by the name of another site, before a request's body is read, and on every path."""

from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from retriever.http.loopback import are_of_loopback, is_loopback
from retriever.http.problems import problem
from retriever.service.problems import Trouble
from retriever.settings import ServeSettings
from schemas.api import ProblemCode

REFUSAL: Final = (
    "the retriever listens on loopback without an API key and answers only at names of it, such as localhost; to reach "
    "it by another name, set serve.api_key"
)


class HostCheck:
    """ASGI middleware for a retriever on loopback without a key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or are_of_loopback(Headers(scope=scope).getlist("host")):
            await self._app(scope, receive, send)
            return
        await problem(Trouble(ProblemCode.WRONG_HOST, REFUSAL))(scope, receive, send)


def needs_host_check(settings: ServeSettings) -> bool:
    """With a key, other sites' pages can ask nothing. Beyond loopback, others may have any name for the retriever."""
    return settings.api_key is None and is_loopback(settings.host)
