"""The page and what stands behind it, over HTTP: `/`, `/v1/overview`, questions and acts.

Acts want the API key in a header, which no other site's page can send for somebody who has it. Which key that is, and
where there are no acts, is decided in `access.py` beside this file. Knows nothing of how an act is done.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct
from pydantic import SecretStr

from nearline.errors import NotReady, is_ours
from nearline.http_pages import Calls, Page, Request, json_page
from nearline.page.access import OTHER_SITE, Access, is_of_other_site
from nearline.page.overview import Overview
from retriever.service.api_key import REFUSAL, is_allowed
from schemas.dead_letters import DeadLetterKind

OVERVIEW_PATH: Final = "/v1/overview"
_FILE: Final = Path(__file__).parent / "page.html"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_T = TypeVar("_T", bound=Struct)


class Build(Struct, frozen=True, forbid_unknown_fields=True):
    """`package`: a folder on the monitor's machine; with a registry, the id of a generation that is published there."""

    package: str
    registry: str | None = None
    reason: str | None = None


class Promote(Struct, frozen=True, forbid_unknown_fields=True):
    """`share`: of the members, above 0 and below 1; None: all."""

    generation: str
    share: float | None = None
    reason: str | None = None


class RollBack(Struct, frozen=True, forbid_unknown_fields=True):
    reason: str | None = None


class ReplayLetters(Struct, frozen=True, forbid_unknown_fields=True):
    """The letters of this stage and cause, as the overview names them."""

    stage: str
    cause: DeadLetterKind


class Question(Struct, frozen=True, forbid_unknown_fields=True):
    """One of both."""

    text: str | None = None
    member_id: str | None = None
    k: int = 10


class Candidate(Struct, frozen=True):
    """`text`: None where none was found."""

    post_id: str
    score: float
    tier: str
    text: str | None


class Candidates(Struct, frozen=True):
    """Best first. `notes`: why they are partial, or why they have no texts."""

    generation: str
    partial: bool
    candidates: list[Candidate]
    total_ms: float | None
    notes: list[str]


class Acts(Protocol):
    """What operators do. Each blocks until it is done, returns a sentence that says what was done, and raises an error
    of ours, whose message is a sentence, or OSError. Several may be done at the same time, of builds one."""

    def build(self, wanted: Build) -> str: ...

    def promote(self, wanted: Promote) -> str: ...

    def roll_back(self, wanted: RollBack) -> str: ...

    def replay_letters(self, wanted: ReplayLetters) -> str: ...

    def answer(self, question: Question) -> Candidates: ...


def page_calls(overview: Callable[[float], Overview], acts: Acts, access: Access) -> Calls:
    """`overview` takes since when the history is wanted, in seconds since 1970, and returns at once."""
    front, building = _front_page(), Lock()

    def overview_page(request: Request) -> Page:
        return _with_headers(json_page(True, overview(_since_s(request.query))))

    def refused_to(request: Request) -> Page | None:
        if is_of_other_site(request.headers):
            return _refused(HTTPStatus.FORBIDDEN, OTHER_SITE)
        return None if _has_key(access.key, request) else _refused(HTTPStatus.UNAUTHORIZED, REFUSAL)

    def ask(request: Request) -> Page:
        # With any header of its own a request of another site's page asks first, and is never allowed.
        if "X-API-Key" not in request.headers:
            return _refused(HTTPStatus.UNAUTHORIZED, REFUSAL)
        return refused_to(request) or _answered(request, Question, acts.answer)

    def act(wanted: type[_T], do: Callable[[_T], str]) -> Callable[[Request], Page]:
        def called(request: Request) -> Page:
            if access.no_acts_because is not None:
                return _refused(HTTPStatus.FORBIDDEN, access.no_acts_because)
            return refused_to(request) or _answered(request, wanted, lambda body: {"done": do(body)})

        return called

    def build(wanted: Build) -> str:
        """May take minutes. The others are short and wait for nothing here: the broker orders what they write."""
        if not building.acquire(blocking=False):
            raise NotReady("another generation is being prepared; wait until that is done")
        try:
            return acts.build(wanted)
        finally:
            building.release()

    return {
        ("GET", "/"): lambda _: front,
        ("GET", OVERVIEW_PATH): overview_page,
        ("POST", "/v1/question"): ask,
        ("POST", "/v1/acts/build"): act(Build, build),
        ("POST", "/v1/acts/promote"): act(Promote, acts.promote),
        ("POST", "/v1/acts/rollback"): act(RollBack, acts.roll_back),
        ("POST", "/v1/acts/replay-dead-letters"): act(ReplayLetters, acts.replay_letters),
    }


def _has_key(key: SecretStr | None, request: Request) -> bool:
    """As the retriever compares it. A request has headers as text, in Latin-1."""
    sent = request.headers.get_all("X-API-Key", [])
    authorization = request.headers.get("Authorization", "")
    return is_allowed(key, authorization.encode("latin-1"), [each.encode("latin-1") for each in sent])


def _answered(request: Request, wanted: type[_T], do: Callable[[_T], Any]) -> Page:
    try:
        body = msgspec.json.decode(request.body, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _refused(HTTPStatus.BAD_REQUEST, f"the body is not as it should be: {error}")
    try:
        answer = do(body)
    except Exception as error:
        if is_ours(error):
            return _refused(HTTPStatus.CONFLICT, str(error))
        if isinstance(error, OSError):
            return _refused(HTTPStatus.INTERNAL_SERVER_ERROR, f"this could not be done: {error}")
        raise
    return _with_headers(json_page(True, answer))


def _refused(status: HTTPStatus, detail: str) -> Page:
    return _with_headers(json_page(False, {"detail": detail}, status))


def _since_s(query: str) -> float:
    """0 if it is no number: then all of it is wanted."""
    try:
        return float(parse_qs(query).get("since", ["0"])[-1])
    except ValueError:
        return 0.0


def _front_page() -> Page:
    """Nothing but the page's own style and script is applied, and it talks to nobody but who served it."""
    html = _FILE.read_text(encoding="utf-8")
    script, style = (_hash(html, tag) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    page = Page(HTTPStatus.OK, "text/html; charset=utf-8", html.encode())
    return _with_headers(page, **{"Content-Security-Policy": policy})


def _hash(html: str, tag: str) -> str:
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _with_headers(page: Page, **more: str) -> Page:
    return page._replace(headers={**_HEADERS, **more})
