"""A device that fails and works again."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from indexer.errors import TierUnavailable
from indexer.hot.matrix import device_scan, torch_matrix
from indexer.hot.matrix.device_rows import DeviceRows
from indexer.hot.matrix.matrix import ScanFilter, ScanQuery
from indexer.hot.matrix.torch_matrix import TorchMatrix, translated_errors
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from indexer.tiers import NO_FILTERS, HotQuery
from schemas.ids import Offset, Partition, PostId
from tests.kit.data.embeddings import DIMENSION, NOW, hot_records, post_embedding, vectors
from tests.kit.raw_clients import Gate

QUERY = vectors(1)[0]
NO_FILTER = ScanFilter(None, None, None, np.empty(0, np.int32), None, None)


@pytest.fixture
def tier(monkeypatch: pytest.MonkeyPatch) -> MatrixHotTier:
    """With the code of the GPU, on the CPU."""
    monkeypatch.setattr("indexer.hot.tier.new_matrix", lambda dimension, *_: TorchMatrix(dimension, 100, "cpu"))
    return MatrixHotTier(DIMENSION, HotSettings(capacity=100), IdTable())


def hits(tier: MatrixHotTier) -> list[PostId]:
    (answer,) = tier.search([HotQuery(QUERY, 10, NO_FILTERS, np.empty(0, np.int32))])
    return tier._ids.ids(answer.numbers)


def matrix_of(tier: MatrixHotTier) -> TorchMatrix:
    matrix = tier._contents._matrix
    assert isinstance(matrix, TorchMatrix)
    return matrix


def fail(*_: object) -> None:
    raise RuntimeError("CUDA error: out of memory\nwith hints on further lines")


def test_a_failed_search_says_so_until_the_device_is_repaired(
    tier: MatrixHotTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier.apply(hot_records(post_embedding("p1"), post_embedding("p2")))
    with monkeypatch.context() as broken:
        broken.setattr(device_scan._Scan, "add", fail)
        with pytest.raises(TierUnavailable, match=r"device failed: CUDA error: out of memory$"):
            hits(tier)
    with pytest.raises(TierUnavailable, match="not repaired yet"):
        hits(tier)
    tier.apply(hot_records(post_embedding("p2", 2, deleted=True), post_embedding("p3"), first=2))
    tier.expire(NOW)
    assert sorted(hits(tier)) == ["p1", "p3"]


def outside_of_torch_s_allocator() -> RuntimeError:
    error = RuntimeError("CUDA error: out of memory\nwith hints on further lines")
    error.error_code = 2  # type: ignore[attr-defined]  # as torch.AcceleratorError has
    return error


@pytest.mark.parametrize("step", [(device_scan._Scan, "add"), (DeviceRows, "view")])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory.\nwith numbers on further lines"),
        outside_of_torch_s_allocator(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_search_without_memory_says_so_and_loses_no_row(
    tier: MatrixHotTier, monkeypatch: pytest.MonkeyPatch, step: tuple[type, str], error: RuntimeError
) -> None:
    def out_of_memory(*_: object) -> None:
        raise error

    tier.apply(hot_records(post_embedding("p1"), post_embedding("p2")))
    with monkeypatch.context() as full:
        full.setattr(*step, out_of_memory)
        with pytest.raises(TierUnavailable, match=r"device failed: CUDA .*(out of memory|ALLOC_FAILED)"):
            hits(tier)
    assert sorted(hits(tier)) == ["p1", "p2"]


@pytest.mark.parametrize("method", ["reserve", "put", "flip", "view"])
def test_changes_go_on_while_the_device_fails(
    tier: MatrixHotTier, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    tier.apply(hot_records(post_embedding("p1"), post_embedding("p2")))
    with monkeypatch.context() as broken:
        broken.setattr(DeviceRows, method, fail)
        tier.apply(hot_records(*(post_embedding(f"p{n}", 2) for n in range(1, 100))))
        tier.begin({Partition(0): Offset(90)})
        tier.expire(NOW)
        with pytest.raises(TierUnavailable):
            hits(tier)
        assert tier.count() == 9
    tier.expire(NOW)
    assert sorted(hits(tier)) == [f"p{n}" for n in range(91, 100)]


def test_what_a_failing_device_did_not_clear_is_gone_after_the_repair(
    tier: MatrixHotTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier.apply(hot_records(post_embedding("p1"), post_embedding("p2", vector=QUERY)))
    with monkeypatch.context() as broken:
        broken.setattr(DeviceRows, "clear", fail)
        tier.begin({Partition(0): Offset(1)})
        tier.expire(NOW)
    assert hits(tier) == ["p2"]
    matrix = matrix_of(tier)
    assert matrix._device_rows is not None
    assert np.count_nonzero(matrix._device_rows._blocks[0].high_RD.numpy().any(axis=1)) == 1


def test_a_device_that_still_fails_is_tried_again_later(tier: MatrixHotTier, monkeypatch: pytest.MonkeyPatch) -> None:
    tier.apply(hot_records(post_embedding("p1")))
    with monkeypatch.context() as broken:
        broken.setattr(DeviceRows, "put", fail)
        tier.apply(hot_records(post_embedding("p2"), first=1))
        for _ in range(2):
            tier.expire(NOW)
            with pytest.raises(TierUnavailable):
                hits(tier)
    tier.expire(NOW)
    assert sorted(hits(tier)) == ["p1", "p2"]


def test_a_device_that_hangs_while_posts_leave_keeps_nobody_from_looking_posts_up(
    tier: MatrixHotTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier.apply(hot_records(post_embedding("p1"), post_embedding("p2")))
    gate = Gate(torch.from_numpy)
    with ThreadPoolExecutor(2) as threads, monkeypatch.context() as hanging:
        hanging.setattr(DeviceRows, "moved", lambda _, array: gate(array))
        try:
            dropping = threads.submit(tier.begin, {Partition(0): Offset(1)})
            gate.wait_for(1)
            posts = threads.submit(tier.posts, [PostId("p1"), PostId("p2")]).result(10)
        finally:
            gate.open()
        dropping.result(30)
    assert None not in posts, "they are there until the device goes on"
    assert hits(tier) == ["p2"]


def test_a_search_that_fails_on_the_device_takes_no_change_from_the_tier(
    tier: MatrixHotTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the device away while the tier is about to write there."""
    matrix = matrix_of(tier)

    @contextmanager
    def a_search_fails_first() -> Iterator[None]:
        matrix._device_rows = None
        with translated_errors():
            yield

    with monkeypatch.context() as failing:
        failing.setattr(torch_matrix, "translated_errors", a_search_fails_first)
        tier.apply(hot_records(post_embedding("p1")))
    tier.expire(NOW)
    assert hits(tier) == ["p1"]


def test_a_search_that_fails_late_does_not_take_away_the_repaired_device(
    tier: MatrixHotTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier.apply(hot_records(post_embedding("p1")))
    with tier._contents.scanning(np.empty(0, np.int32)) as (_, view), monkeypatch.context() as broken:
        broken.setattr(device_scan._Scan, "add", fail)
        with pytest.raises(TierUnavailable):
            hits(tier)
        tier.expire(NOW)
        with pytest.raises(TierUnavailable):
            view.scan([ScanQuery(QUERY, 1, NO_FILTER, np.empty(0, np.int64), np.empty(0, np.int32))])
    assert hits(tier) == ["p1"]


def test_blocks_of_a_device_are_searched_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 1,024 rows, so that 3,000 posts are in three of them."""
    monkeypatch.setattr("indexer.hot.matrix.device_rows._MIN_BLOCK", 1024)
    monkeypatch.setattr("indexer.hot.tier.new_matrix", lambda dimension, *_: TorchMatrix(dimension, 3000, "cpu"))
    tier = MatrixHotTier(DIMENSION, HotSettings(capacity=3000), IdTable())
    rows = vectors(3000, seed=3)
    tier.apply(hot_records(*(post_embedding(f"p{n}", vector=vector) for n, vector in enumerate(rows))))
    expected = [f"p{n}" for n in np.argsort(-(rows @ QUERY))[:300]]
    (answer,) = tier.search([HotQuery(QUERY, 300, NO_FILTERS, np.empty(0, np.int32))])
    assert tier._ids.ids(answer.numbers) == expected
