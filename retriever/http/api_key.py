"""The API key: in front of everything but the health pages, before a request's body is read."""

import hmac
from typing import Final

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from retriever.http.request_limits import refusal

HEALTH: Final = frozenset(("/livez", "/readyz"))
_MEND: Final = "the API key is missing or wrong; send it as Authorization: Bearer KEY or as X-API-Key: KEY"


class ApiKeyGuard:
    """ASGI middleware. Without a key everybody may ask."""

    def __init__(self, app: ASGIApp, key: SecretStr | None) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in HEALTH or self._allows(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        await refusal(401, _MEND, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _allows(self, headers: Headers) -> bool:
        if self._key is None:
            return True
        expected = self._key.get_secret_value().encode()
        # Headers arrive as latin-1: back to the bytes that were sent.
        return any(hmac.compare_digest(given.encode("latin-1"), expected) for given in _given(headers))


def _given(headers: Headers) -> list[str]:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = [token.strip()] if scheme.lower() == "bearer" else []
    return [*bearer, *headers.getlist("x-api-key")]
