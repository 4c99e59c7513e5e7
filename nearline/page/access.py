"""Who may do what with the operators' page: by the keys in the settings, and by what a browser says of a request.

A browser may send requests that its user knows nothing of: for the page of another site, also for one whose name was
made to lead to this machine (DNS rebinding). Knows no page and no act.
"""

from email.message import Message
from http import HTTPStatus
from typing import Final, NamedTuple

from pydantic import SecretStr

from nearline.http_pages import Page, json_page
from nearline.settings.settings import MonitorSettings
from retriever.http.loopback import are_of_loopback, is_loopback

_MEND: Final = (
    "set monitor.api_key (NEARLINE_MONITOR__API_KEY_FILE), or use the commands, such as nearline generations promote"
)
NO_KEY: Final = f"no API key is set, so nobody may change anything here: {_MEND}"
NO_OWN_KEY: Final = (
    "the monitor listens beyond loopback and has no API key of its own, so nobody may change anything here: " + _MEND
)
OTHER_HOST: Final = (
    "the monitor listens on loopback and answers only at names of it, such as localhost; to reach it by another name, "
    "set monitor.api_key"
)
OTHER_SITE: Final = "the page of another site has sent this, which may neither ask nor change anything here"


class Access(NamedTuple):
    """`key`: what questions and acts want; None: questions want none, and there are no acts. `no_acts_because`: None
    where there are acts. `only_as_loopback`: the monitor answers only who asks it by a name or address of loopback."""

    key: SecretStr | None
    no_acts_because: str | None
    only_as_loopback: bool

    def refuse_host(self, headers: Message) -> Page | None:
        """Refuses who asks by a name of elsewhere: a browser would give the answer to the page of the site that has
        this name. None: it may be answered."""
        if not self.only_as_loopback or are_of_loopback(headers.get_all("Host", [])):
            return None
        return json_page(False, {"detail": OTHER_HOST}, HTTPStatus.FORBIDDEN)


def access(monitor: MonitorSettings, serve_key: SecretStr | None) -> Access:
    """Without a key of its own a monitor on loopback takes the retriever's, which also clients have."""
    if monitor.api_key is not None:
        return Access(monitor.api_key, None, only_as_loopback=False)
    if not is_loopback(monitor.host):
        return Access(serve_key, NO_OWN_KEY, only_as_loopback=False)
    return Access(serve_key, NO_KEY if serve_key is None else None, only_as_loopback=True)


def is_of_other_site(headers: Message) -> bool:
    """As browsers say it, in headers that no script can set. Programs send neither."""
    fetched = headers.get("Sec-Fetch-Site")
    if fetched is not None:
        return fetched not in {"same-origin", "none"}
    # Older browsers, and newer ones without TLS.
    origin, host = headers.get("Origin"), headers.get("Host", "").lower()
    return origin is not None and origin.lower() not in {f"http://{host}", f"https://{host}"}
