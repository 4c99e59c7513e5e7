"""Checks the API key before a request's body is read. Only `/livez` and `/readyz` need no key."""

import hmac
from typing import Final

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from retriever.http.request_limits import refusal

NEEDS_NO_KEY: Final = frozenset(("/livez", "/readyz"))
_REFUSAL: Final = "the API key is missing or wrong; send it as Authorization: Bearer KEY or as X-API-Key: KEY"


class ApiKeyGuard:
    """ASGI middleware. If no key is set, it lets everybody in."""

    def __init__(self, app: ASGIApp, key: SecretStr | None) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in NEEDS_NO_KEY or self._allows(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        await refusal(401, _REFUSAL, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _allows(self, headers: Headers) -> bool:
        if self._key is None:
            return True
        expected = self._key.get_secret_value().encode()
        # Starlette decodes headers as latin-1. Encoding them again gives the bytes that were sent.
        return any(hmac.compare_digest(key.encode("latin-1"), expected) for key in _sent_keys(headers))


def _sent_keys(headers: Headers) -> list[str]:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = [token.strip()] if scheme.lower() == "bearer" else []
    return [*bearer, *headers.getlist("x-api-key")]
