"""A hot tier whose device hangs in a search that has the tier's lock."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import numpy as np

from indexer.hot.tier import MatrixHotTier
from indexer.tiers import NO_FILTERS, HotQuery
from tests.kit.data.embeddings import vectors
from tests.kit.raw_clients import Gate


@contextmanager
def hung(tier: MatrixHotTier) -> Iterator[None]:
    """Until the end of the block, 30 s at most."""
    matrix = tier._contents._matrix
    gate = Gate(matrix.view)
    matrix.view = gate  # type: ignore[method-assign]
    query = HotQuery(vectors(1)[0], 1, NO_FILTERS, np.empty(0, np.int32))
    search = Thread(target=tier.search, args=([query],))
    search.start()
    gate.wait_for(1)
    try:
        yield
    finally:
        gate.open()
        search.join()
