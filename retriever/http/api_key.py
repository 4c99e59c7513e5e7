"""Checks the API key before a request's body is read. Only `/livez` and `/readyz` need no key."""

from typing import Final

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from retriever.http.problems import problem
from retriever.service.api_key import REFUSAL, is_allowed
from retriever.service.problems import Trouble
from schemas.api import ProblemCode

NEEDS_NO_KEY: Final = frozenset(("/livez", "/readyz"))


class ApiKeyGuard:
    """ASGI middleware. If no key is set, it lets everybody in."""

    def __init__(self, app: ASGIApp, key: SecretStr | None) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in NEEDS_NO_KEY or self._allows(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        refusal = problem(Trouble(ProblemCode.UNAUTHENTICATED, REFUSAL), {"WWW-Authenticate": "Bearer"})
        await refusal(scope, receive, send)

    def _allows(self, headers: Headers) -> bool:
        # Starlette decodes headers as latin-1. Encoding them again gives the bytes that were sent.
        keys = [key.encode("latin-1") for key in headers.getlist("x-api-key")]
        return is_allowed(self._key, headers.get("authorization", "").encode("latin-1"), keys)
