"""Compares API keys. What needs none: `/livez`, `/readyz` and gRPC's health service."""

import hmac
from collections.abc import Iterable
from typing import Final

from pydantic import SecretStr

REFUSAL: Final = "the API key is missing or wrong; send it as Authorization: Bearer KEY or as X-API-Key: KEY"


def is_allowed(key: SecretStr | None, authorization: bytes, x_api_keys: Iterable[bytes]) -> bool:
    """Whether one of the headers holds the key. If there is no key, everybody is let in."""
    if key is None:
        return True
    expected = key.get_secret_value().encode()
    scheme, _, token = authorization.partition(b" ")
    bearer = [token.strip()] if scheme.lower() == b"bearer" else []
    return any(hmac.compare_digest(sent, expected) for sent in (*bearer, *x_api_keys))
