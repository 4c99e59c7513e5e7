"""A small HTTP server for pages that a process says of itself, such as `/livez` and `/metrics`.

Takes a function for each path, which must answer at once; and, where there are any, functions that are given the
request, which may take their time. Knows nothing of what the pages say.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6
from threading import Thread
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

_JSON: Final = "application/json"
_TIMEOUT_S: Final = 10.0
"""For the request of a slow client, and for its connection between two requests."""
_MAX_BODY_BYTES: Final = 64 * 1024


class Page(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


class Request(NamedTuple):
    """`query`: what follows the question mark. Headers are found whatever the case of their names."""

    query: str
    headers: Message
    body: bytes


Pages = Mapping[str, Callable[[], Page]]
"""By path. Several threads call the functions at the same time."""
Calls = Mapping[tuple[str, str], Callable[[Request], Page]]
"""Likewise, by method (GET or POST) and path."""
NO_CALLS: Final[Calls] = MappingProxyType({})
Refuse = Callable[[Message], Page | None]
"""Takes the headers of any request, and returns what is answered instead; None: it is let in. Several threads call it
at the same time."""


@contextmanager
def served_pages(
    name: str, pages: Pages, host: str, port: int, calls: Calls = NO_CALLS, *, refuse: Refuse = lambda _: None
) -> Iterator[None]:
    """Serves within the context. `name` is that of the thread. Raises OSError if the port is taken."""
    server_class = _Server6 if ":" in host else _Server
    with server_class((host, port), _handler(pages, calls, refuse)) as server:
        thread = Thread(target=server.serve_forever, name=name, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def json_page(is_good: bool, content: object, else_status: HTTPStatus = HTTPStatus.SERVICE_UNAVAILABLE) -> Page:
    status = HTTPStatus.OK if is_good else else_status
    return Page(status, _JSON, msgspec.json.encode(content) + b"\n")


def metrics_page(registry: CollectorRegistry) -> Page:
    return Page(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that breaks off is no news."""


class _Server6(_Server):
    address_family = AF_INET6


def _handler(pages: Pages, calls: Calls, refuse: Refuse) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _TIMEOUT_S

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            page, call, refusal = pages.get(path), calls.get(("GET", path)), refuse(self.headers)
            if refusal is not None:
                self._send(refusal)
            elif page is not None:
                self._send(page())
            elif call is not None:
                self._send(call(Request(query, self.headers, b"")))
            else:
                self._send(_not_found(pages, calls))

        def do_POST(self) -> None:
            path, _, query = self.path.partition("?")
            call, length = calls.get(("POST", path)), self.headers.get("Content-Length", "")
            refusal = refuse(self.headers)
            # What is not read of a body would be taken for the next request.
            self.close_connection = True
            if refusal is not None:
                self._send(refusal)
            elif call is None:
                self._send(_not_found(pages, calls))
            elif not length.isascii() or not length.isdigit():
                self._send(_problem(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length"))
            elif len(length) > 9 or int(length) > _MAX_BODY_BYTES:
                self._send(_problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {_MAX_BODY_BYTES} bytes"))
            else:
                self._send(call(Request(query, self.headers, self.rfile.read(int(length)))))

        def _send(self, page: Page) -> None:
            self.send_response(page.status)
            self.send_header("Content-Type", page.content_type)
            self.send_header("Content-Length", str(len(page.body)))
            for name, value in page.headers.items():
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(page.body)

        def log_message(self, *_: object) -> None:
            """Prometheus asks every few seconds: nothing that is worth a line."""

    return Handler


def _not_found(pages: Pages, calls: Calls) -> Page:
    paths = [*pages, *(path for _, path in calls)]
    return _problem(HTTPStatus.NOT_FOUND, f"there are: {', '.join(dict.fromkeys(paths))}")


def _problem(status: HTTPStatus, detail: str) -> Page:
    return json_page(False, {"detail": detail}, status)
