"""A client in another language, made from the committed proto alone by stock tools, gets what HTTP gives."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from retriever.client import RetrieverClient
from schemas.api import RetrieveRequest
from tests.kit.retrievers import RetrieverSetup, Served, asking_member, scored_post
from tests.kit.stranger.build import Stranger

K = 2000


@pytest.mark.broker  # Java and Maven, as the broker
@pytest.mark.skipif(shutil.which("javac") is None, reason="needs a JDK; the broker is content with a JRE")
def test_a_client_in_java_gets_the_same_candidates_as_http(tmp_path: Path) -> None:
    stranger = Stranger(tmp_path)
    retriever = RetrieverSetup()
    retriever.in_cold(asking_member("m"), *(scored_post(f"räume-{n}", n / 3000) for n in range(K)))
    retriever.in_hot(*(scored_post(f"h{n}", (n + 0.5) / 3000) for n in range(500)))
    with Served(retriever) as service, RetrieverClient(service.url) as http:
        candidates = stranger.ask(service.grpc, "m", K)
        answer = http.retrieve(RetrieveRequest(member_id="m", k=K))
    assert len(answer.post_ids) == K
    assert [candidate.post_id for candidate in candidates] == answer.post_ids
    # Java writes the fewest digits that name the float; both are the same 32 bits.
    assert np.array_equal(np.float32([candidate.score for candidate in candidates]), np.float32(answer.scores))
    assert [candidate.tier for candidate in candidates] == [f"TIER_{tier.upper()}" for tier in answer.tiers]
    assert set(answer.tiers) == {"hot", "cold"}
