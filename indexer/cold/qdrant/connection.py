"""The connection to a Qdrant server: how it is made, and what its errors mean. Knows no collection and no record."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from indexer.cold.qdrant.authorities import read_authorities
from indexer.errors import TierLate, TierRefused, TierUnavailable
from indexer.settings import ColdSettings

_NO_ANSWER: Final = "the Qdrant server does not answer as it should"
_KEY_REFUSED: Final = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_REQUEST_REFUSED: Final = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
)
"""These become TierUnavailable too: the server or its settings have to change, and no record is to blame."""


def connect(settings: ColdSettings) -> QdrantClient:
    """Asks the server nothing yet. Raises TierRefused for settings that name no server or no readable CA file."""
    if settings.url is None:
        raise TierRefused("no Qdrant server is configured; set cold.url")
    authorities = read_authorities(settings)
    key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    with warnings.catch_warnings():
        # The client warns if a key is sent over an insecure connection. But whoever wrote http into `cold.url` knows.
        warnings.simplefilter("ignore", UserWarning)
        return QdrantClient(
            settings.url,
            grpc_port=settings.grpc_port,
            api_key=key,
            prefer_grpc=True,
            timeout=max(1, round(settings.timeout_s)),
            grpc_options={} if authorities is None else {"root_certificates": authorities},
            # The compatibility check would ask the server at once, and only print a warning.
            check_compatibility=False,
        )


@contextmanager
def server_errors() -> Iterator[None]:
    """Raises TierLate if the server did not answer in time, and TierUnavailable for every other error of the server or
    the connection, and for every refusal."""
    try:
        yield
    except (ApiException, QdrantException, grpc.RpcError, OSError, ValueError) as error:
        late = isinstance(error, grpc.RpcError) and _code(error) is grpc.StatusCode.DEADLINE_EXCEEDED
        raise (TierLate if late else TierUnavailable)(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    """One line about the error, without the request."""
    if not isinstance(error, grpc.RpcError):
        return f"{_NO_ANSWER}: {next(iter(str(error).strip().splitlines()), type(error).__name__)}"
    code = _code(error)
    details = getattr(error, "details", lambda: None)()
    reason = f"{code.name if code is not None else 'gRPC'}: {details}"
    if code in _KEY_REFUSED:
        return f"the Qdrant server refuses the API key ({reason}); set cold.api_key"
    if code in _REQUEST_REFUSED:
        return f"the Qdrant server refuses the request ({reason})"
    return f"{_NO_ANSWER}: {reason}"


def _code(error: grpc.RpcError) -> grpc.StatusCode | None:
    code: grpc.StatusCode | None = getattr(error, "code", lambda: None)()
    return code
