"""A retriever over both kinds of hot tiers."""

from collections.abc import Iterator

import pytest

from tests.kit.retrievers import RetrieverSetup


@pytest.fixture(params=[False, True], ids=["plain", "real"])
def retriever(request: pytest.FixtureRequest) -> Iterator[RetrieverSetup]:
    """Over the plain hot tier, and over the real one."""
    retriever = RetrieverSetup(real_hot_tier=request.param)
    yield retriever
    retriever.close()
