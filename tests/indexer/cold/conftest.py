import pytest

from indexer.cold.edge import shards


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards and quantised segments with a few hundred points."""
    monkeypatch.setattr(shards, "SHARD_POINTS", 64)
    monkeypatch.setattr(shards, "_BUILD_AFTER_POINTS", 32)
    monkeypatch.setattr(shards, "_MIN_BUILT_POINTS", 10)
