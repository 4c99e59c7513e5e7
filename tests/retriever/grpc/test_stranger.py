"""A client in another language, made from the committed proto alone by stock tools, is answered as ours is."""

from pathlib import Path

import pytest

from nearline import Client
from retriever import nearline_pb2 as pb
from tests.kit.grpc_stand_in import StandIn
from tests.kit.stranger.build import Stranger


@pytest.mark.broker  # Java and Maven, as the broker
def test_a_client_in_java_gets_what_ours_gets(tmp_path: Path) -> None:
    stranger = Stranger(tmp_path)
    ids = [f"räume-{number}" for number in range(2000)]
    scores = [1.0 - number / 3000 for number in range(2000)]
    with StandIn() as stand_in, Client(stand_in.url, timeout_s=20.0) as client:
        stand_in.answer(pb.RetrieveResponse(post_ids=ids, scores=scores, tiers=[pb.TIER_HOT, pb.TIER_COLD] * 1000))
        answer = client.retrieve(member_id="m")
        candidates = stranger.ask(stand_in.url, "m", 2000)
    assert [candidate.post_id for candidate in candidates] == list(answer.post_ids)
    assert [candidate.score for candidate in candidates] == pytest.approx(list(answer.scores), rel=1e-6)
    assert [candidate.tier for candidate in candidates] == [f"TIER_{tier.upper()}" for tier in answer.tiers]
