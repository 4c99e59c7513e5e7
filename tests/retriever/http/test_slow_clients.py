"""What a slow client costs: its place and its connection are free again in time, and its reason is said."""

from contextlib import ExitStack
from itertools import repeat

import pytest

from retriever.http import request_limits
from tests.kit.raw_clients import HEAD, LIVE, Gate, Talk, ask
from tests.kit.retrievers import RetrieverSetup, Served, scored_post
from tests.kit.waiting import until


@pytest.mark.usefixtures("impatient")
class TestSlowClients:
    def test_headers_that_come_drop_by_drop(self, served: Served) -> None:
        with Talk(served) as talk:
            talk.say("GET /livez HTTP/1.1\r\nX: ")
            assert talk.drip() == ""

    def test_headers_of_a_second_request(self, served: Served) -> None:
        with Talk(served) as talk:
            talk.say(LIVE)
            assert "200 OK" in talk.hear()
            talk.say("GET /livez HTTP/1.1\r\nX: ")
            assert talk.drip() == ""

    def test_a_body_that_comes_drop_by_drop(self, served: Served) -> None:
        with Talk(served) as talk:
            talk.say(HEAD)
            heard = talk.drip()
        assert heard.startswith("HTTP/1.1 408 ")
        assert "did not arrive within 0.5 s" in heard

    def test_a_body_that_was_refused_already(self, retriever: RetrieverSetup) -> None:
        with Served(retriever, api_key="secret") as served, Talk(served) as talk:
            talk.say(HEAD)
            assert "401 Unauthorized" in talk.hear()
            talk.drip()

    def test_one_who_says_nothing(self, served: Served) -> None:
        with Talk(served) as talk:
            assert talk.hear() == ""

    def test_one_who_has_nothing_more_to_say(self, served: Served) -> None:
        with Talk(served) as talk:
            talk.say(LIVE)
            assert "200 OK" in talk.hear_all()

    def test_those_who_do_not_take_the_answer(self, served: Served, retriever: RetrieverSetup) -> None:
        retriever.in_hot(scored_post("h"))
        # More than all buffers between us take.
        (stored,) = retriever.hot.tier.scroll_posts()
        scroll = Gate(lambda **_: repeat(stored, 1_000_000))
        retriever.hot.tier.scroll_posts = scroll
        with ExitStack() as talks:
            for _ in range(request_limits.OPERATIONS_IN_FLIGHT):
                talks.enter_context(Talk(served)).say("GET /v1/hot/posts HTTP/1.1\r\nHost: localhost\r\n\r\n")
            scroll.wait_for(request_limits.OPERATIONS_IN_FLIGHT)
            assert ask(served, "/v1/hot/positions").status_code == 429, "they have all places"
            scroll.open()
            until(lambda: ask(served, "/v1/hot/positions").status_code == 200, "a place to be free again")

    def test_requests_that_take_their_time_are_not_cut(
        self, served: Served, retriever: RetrieverSetup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither by a pause in the body nor by one before the answer, each longer than headers may take."""
        monkeypatch.setattr(request_limits, "BODY_S", 60.0)
        search = Gate(retriever.cold.tier.search)
        retriever.cold.tier.search = search
        body = '{"member_id": "m", "timeout_ms": 60000}'
        with Talk(served) as talk:
            for piece in (HEAD.replace("1000", str(len(body))), body[:5], body[5:]):
                talk.say(piece)
                _pause_for_longer_than_headers_may_take(served)
            search.wait_for(1)
            search.open()
            assert talk.hear().startswith("HTTP/1.1 200 OK")


def _pause_for_longer_than_headers_may_take(served: Served) -> None:
    """Whoever connects now and says nothing is hung up on when that time is over."""
    with Talk(served) as silent:
        assert silent.hear() == ""
