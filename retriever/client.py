"""The client of a retriever, over HTTP.

The commands import this module, so it imports little: no service, no model and no large HTTP library. httpx alone takes
as long to import as everything else in a command.
"""

import json
import select
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Final, Self, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

from retriever.errors import NotAllowed, RequestRefused, RetrieverUnavailable
from schemas.api import (
    MAX_TIMEOUT_MS,
    HotPositions,
    HotPost,
    PostResponse,
    Readiness,
    RetrieveRequest,
    RetrieveResponse,
    StatusResponse,
)

TIMEOUT_S: Final = 60.0
_CONNECT_S: Final = 3.0
_CHUNK_BYTES: Final = 64 * 1024
_TRY_LATER: Final = (408, 429)
"""The two 4xx statuses for which the same request may succeed later."""

M = TypeVar("M", bound=BaseModel)


class RetrieverClient:
    """For one thread. Keeps its connection open between requests, and connects again if the server has closed it. Call
    `close` at the end, or use `with`.

    Every method raises RetrieverUnavailable if there is no answer, RequestRefused if the request is wrong, NotAllowed
    if the API key is wrong.
    """

    def __init__(
        self,
        url: str,
        api_key: SecretStr | None = None,
        timeout_s: float = TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls` is made by `retriever/http/tls.py`. With None, certificates of the authorities that this machine trusts
        are accepted. Raises RetrieverUnavailable for a bad URL, NotAllowed for a key that no header can carry."""
        self._url = url
        self._timeout_s = timeout_s
        self._headers = {"X-API-Key": _sendable(api_key)} if api_key else {}
        self._connection, self._prefix = _connection(url, min(timeout_s, _CONNECT_S), tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def retrieve(self, request: RetrieveRequest) -> RetrieveResponse:
        """If the request names no `timeout_ms`, it is the time for which this client waits: people rather wait than get
        an answer in which a tier is missing."""
        if "timeout_ms" not in request.model_fields_set:
            timeout_ms = min(round(self._timeout_s * 1000), MAX_TIMEOUT_MS)
            request = request.model_copy(update={"timeout_ms": timeout_ms})
        body = request.model_dump_json(exclude_defaults=True)
        return self._ask(RetrieveResponse, "POST", "/v1/retrieve", body)

    def post(self, post_id: str) -> PostResponse:
        return self._ask(PostResponse, "GET", f"/v1/posts/{quote(post_id, safe='')}")

    def status(self) -> StatusResponse:
        return self._ask(StatusResponse, "GET", "/v1/status")

    def hot_positions(self, generation: str | None = None) -> HotPositions:
        """None: of the serving generation."""
        return self._ask(HotPositions, "GET", f"/v1/hot/positions{_of(generation)}")

    def ready(self) -> Readiness:
        """Also returns an answer while the retriever is not ready; then its `problems` say what is missing."""
        return self._ask(Readiness, "GET", "/readyz", also=503)

    def hot_posts(self, generation: str | None = None) -> Iterator[HotPost]:
        """All live posts of the hot tier, as they arrive. Read all of them before the next request. `generation`: None
        is the serving one."""
        with self._translated_errors():
            answer = self._send("GET", f"/v1/hot/posts{_of(generation)}")
            _raise_refusal(answer)
            for line in _lines(answer):
                yield HotPost.model_validate_json(line)

    def _ask(self, message: type[M], method: str, path: str, body: str | None = None, also: int = 200) -> M:
        """`also`: a status besides 200 with which the retriever sends such a message."""
        with self._translated_errors():
            answer = self._send(method, path, body)
            if answer.status != also:
                _raise_refusal(answer)
            return message.model_validate_json(answer.read())

    def _send(self, method: str, path: str, body: str | None = None) -> HTTPResponse:
        """If the open connection breaks, sends the request once more on a new connection: the server may close an idle
        connection just when it is used again. Repeating is safe, because no request changes anything."""
        connection = self._connection
        if connection.sock is not None and not _is_stale(connection):
            with suppress(ConnectionError):
                return self._exchange(method, path, body)
        connection.close()
        connection.connect()
        connection.sock.settimeout(self._timeout_s)
        return self._exchange(method, path, body)

    def _exchange(self, method: str, path: str, body: str | None) -> HTTPResponse:
        headers: dict[str, str | bytes] = {**self._headers}
        if body is not None:
            headers["Content-Type"] = "application/json"
        self._connection.request(method, self._prefix + path, None if body is None else body.encode(), headers)
        return self._connection.getresponse()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Turns the errors of other libraries into RetrieverErrors; nothing else does. Closes the connection after any
        error."""
        succeeded = False
        try:
            yield
            succeeded = True
        except TimeoutError as error:
            raise RetrieverUnavailable(f"the retriever at {self._url} did not answer in time; try again") from error
        except ssl.SSLCertVerificationError as error:
            raise RetrieverUnavailable(
                f"the certificate of the retriever at {self._url} is not trusted ({error.verify_message}); "
                "set serve.ca_file to the certificate of the authority that signed it"
            ) from error
        except (OSError, HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise RetrieverUnavailable(f"the retriever at {self._url} does not answer ({why}); is it up?") from error
        except ValidationError as error:
            raise RetrieverUnavailable(f"the server at {self._url} is not a retriever of this version") from error
        finally:
            if not succeeded:
                self.close()


def _of(generation: str | None) -> str:
    return "" if generation is None else f"?generation={quote(generation, safe='')}"


def _sendable(api_key: SecretStr) -> bytes:
    """The key as bytes. Raises NotAllowed for a key that no header can carry. http.client would refuse such a key too,
    but its error would show the key."""
    key = api_key.get_secret_value()
    if not key.isprintable():
        raise NotAllowed("the API key holds a character that a header cannot carry, such as a line end")
    return key.encode()


def _connection(url: str, connect_s: float, tls: ssl.SSLContext | None) -> tuple[HTTPConnection, str]:
    """A connection that is not open yet, and the first part of every request's path. Raises RetrieverUnavailable."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https") or not _is_valid(host, parts.path):
        raise RetrieverUnavailable(
            f"{url!r} is not the address of a retriever; give an address such as http://127.0.0.1:8080"
        )
    if parts.scheme == "https":
        return HTTPSConnection(host, port, timeout=connect_s, context=tls), parts.path.rstrip("/")
    return HTTPConnection(host, port, timeout=connect_s), parts.path.rstrip("/")


def _is_valid(host: str, path: str) -> bool:
    """True if a name server can look up the host and HTTP can send the path."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return path.isascii() and all(text.isprintable() and " " not in text for text in (host, path))


def _is_stale(connection: HTTPConnection) -> bool:
    """True if the server has closed the idle connection. A server sends nothing before a request, so if there is
    something to read, it is the end of the connection."""
    poll = select.poll()  # not select(), which takes no descriptor above 1023
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _lines(answer: HTTPResponse) -> Iterator[bytes]:
    """The lines of the answer. `for line in answer` would not notice that an answer was cut off."""
    rest = b""
    while chunk := answer.read1(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _raise_refusal(answer: HTTPResponse) -> None:
    if answer.status < 400:
        return
    detail = _detail(answer)
    if answer.status in (401, 403):
        raise NotAllowed(detail)
    if answer.status < 500 and answer.status not in _TRY_LATER:
        raise RequestRefused(detail)
    raise RetrieverUnavailable(detail)


def _detail(answer: HTTPResponse) -> str:
    try:
        return str(json.loads(answer.read())["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the retriever answered with status {answer.status}"
