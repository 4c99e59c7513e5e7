"""Asks a retriever over HTTP. Light on purpose: commands import it, so neither the service nor a model comes along."""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from retriever.errors import NotAllowed, RequestRefused, RetrieverUnavailable
from schemas.api import (
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

M = TypeVar("M", bound=BaseModel)


class RetrieverClient:
    """One connection pool; close it, or use it in a `with`. Every method raises RetrieverUnavailable when there is no
    answer, RequestRefused when the request is wrong, NotAllowed when the key is."""

    def __init__(self, url: str, api_key: SecretStr | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._url = url
        self._http = httpx.Client(
            base_url=url,
            headers={"X-API-Key": api_key.get_secret_value()} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
            # A proxy from the environment is for elsewhere.
            trust_env=not _is_loopback(url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def retrieve(self, request: RetrieveRequest) -> RetrieveResponse:
        body = request.model_dump_json(exclude_defaults=True)
        return self._ask(RetrieveResponse, "POST", "/v1/retrieve", body)

    def post(self, post_id: str) -> PostResponse:
        return self._ask(PostResponse, "GET", f"/v1/posts/{quote(post_id, safe='')}")

    def status(self) -> StatusResponse:
        return self._ask(StatusResponse, "GET", "/v1/status")

    def hot_positions(self) -> HotPositions:
        return self._ask(HotPositions, "GET", "/v1/hot/positions")

    def ready(self) -> Readiness:
        """Says also what is missing."""
        with self._translated():
            answer = self._http.get("/readyz")
            if answer.status_code not in (200, 503):
                self._check(answer)
            return Readiness.model_validate_json(answer.content)

    def hot_posts(self) -> Iterator[HotPost]:
        """All live posts of the hot tier, as they come."""
        with self._translated(), self._http.stream("GET", "/v1/hot/posts") as answer:
            if answer.is_error:
                answer.read()
            self._check(answer)
            for line in answer.iter_lines():
                yield HotPost.model_validate_json(line)

    def _ask(self, message: type[M], method: str, path: str, body: str | None = None) -> M:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        with self._translated():
            answer = self._http.request(method, path, content=body, headers=headers)
            self._check(answer)
            return message.model_validate_json(answer.content)

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        detail = _detail(answer)
        if answer.status_code in (401, 403):
            raise NotAllowed(detail)
        if answer.is_client_error:
            raise RequestRefused(detail)
        raise RetrieverUnavailable(detail)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where httpx's errors become ours."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise RetrieverUnavailable(f"the retriever at {self._url} did not answer in time; try again") from error
        except httpx.HTTPError as error:
            raise RetrieverUnavailable(f"the retriever at {self._url} does not answer ({error}); is it up?") from error
        except ValidationError as error:
            raise RetrieverUnavailable(f"what answers at {self._url} is not this version of a retriever") from error


def _detail(answer: httpx.Response) -> str:
    try:
        body: Any = answer.json()
        return str(body["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the retriever answered with status {answer.status_code}"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
