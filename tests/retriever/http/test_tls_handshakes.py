"""A handshake has a time limit, and counts as a connection."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from retriever.http import server
from tests.kit.certificates import certificate
from tests.kit.raw_clients import LIVE, Talk, TlsTalk
from tests.kit.retrievers import RetrieverSetup, Served
from tests.kit.waiting import until


@pytest.fixture
def secured(retriever: RetrieverSetup, tmp_path: Path) -> Iterator[Served]:
    with Served(retriever, **certificate(tmp_path, "127.0.0.1").settings()) as served:
        yield served


class TestTlsHandshakes:
    @pytest.mark.usefixtures("impatient")
    def test_one_who_says_nothing(self, secured: Served) -> None:
        with Talk(secured) as talk:
            assert talk.hear() == ""

    @pytest.mark.usefixtures("impatient")
    def test_one_who_breaks_off(self, secured: Served) -> None:
        with Talk(secured) as talk:
            talk.say("\x16\x03\x01")  # how a greeting begins
            assert talk.hear() == ""

    def test_one_who_speaks_something_else(self, secured: Served) -> None:
        with Talk(secured) as talk:
            talk.say(LIVE)
            assert "HTTP" not in talk.hear_all()

    def test_they_count_as_connections(self, secured: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "_max_connections", lambda: 3)
        monkeypatch.setattr(server, "HEAD_S", 60.0)  # else that limit would close them
        with ExitStack() as silent:
            for _ in range(2):
                silent.enter_context(Talk(secured))
            with TlsTalk(secured) as talk:
                assert "200 OK" in talk.ask(LIVE)
                with Talk(secured) as one_too_many:
                    assert one_too_many.hear() == ""
                assert "200 OK" in talk.ask(LIVE)
        until(lambda: _is_let_in(secured), "their places to be free again")

    def test_a_request_may_come_with_the_end_of_the_handshake(self, secured: Served) -> None:
        with TlsTalk(secured, first=LIVE) as talk:
            assert "200 OK" in talk.hear()


def _is_let_in(served: Served) -> bool:
    with suppress(ConnectionError), TlsTalk(served) as talk:
        return "200 OK" in talk.ask(LIVE)
    return False
