"""Part 3: the hot tier on the device. The scan alone with very many posts, and the whole tier with fewer.

A scan asks the tier's rows on the device (`indexer/hot/matrix/device_rows.py`), as every search does; main memory would
not hold the copy of a hundred million vectors that the whole tier keeps there.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final

import numpy as np
import torch

from benchmarks.gpu.hot_rows import FilledRows, Upserts
from benchmarks.gpu.run import LeftOut, Run
from benchmarks.kit.hot_load import Records, Writer
from benchmarks.kit.table import Figure
from benchmarks.kit.vectors import draw
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from indexer.tiers import NO_FILTERS, HotQuery

DIMENSION: Final = 128
_CHECKED: Final = 4
"""Queries that brute force answers too."""
_AIM_POSTS: Final = 100_000_000
"""The aims are for so many posts or fewer."""
_ONE_MS: Final = 5.0
_PER_S: Final = 2_000.0
_FOUND: Final = 0.999
_BYTES_A_ROW: Final = 2 * 2 * DIMENSION + 32
"""Of the rows: two numbers in half precision for each dimension, the fields, and what a search makes of them."""
_ROOM: Final = 12 << 30
"""For the scores of 64 queries."""


def measure(run: Run, num_rows: int, *, whole_tier: bool) -> None:
    name = f"{num_rows / 1e6:g}M posts"
    rows = FilledRows(run, num_rows, DIMENSION)
    run.arm(f"{name}, filling", partial(_fill, run, rows, num_rows))
    if rows.num_filled < num_rows:
        return
    run.arm(f"{name}, exactness", partial(_exactness, run, rows))
    for label, rate in (("", 0), (f", {run.sizes.rate} upserts/s beside", run.sizes.rate)):
        run.arm(f"{name}{label}", partial(_searches, run, rows, rate))
    rows.close()
    run.device.free()
    run.arm(f"{name}, FAISS", partial(_faiss, run, num_rows))
    if whole_tier:
        run.arm(f"the whole tier, {run.sizes.tier_posts} posts", partial(_tier, run))


def _fill(run: Run, rows: FilledRows, num_rows: int) -> Iterator[Figure]:
    needed = num_rows * _BYTES_A_ROW + _ROOM
    if run.device.free_bytes() < needed:
        raise LeftOut(f"it takes {needed / 1e9:.0f} GB of the device")
    seconds = run.device.seconds(rows.fill)
    yield Figure("rows/s, made and copied", num_rows / seconds)


def _exactness(run: Run, rows: FilledRows) -> Iterator[Figure]:
    queries = rows.queries(_CHECKED)
    found = rows.scan(queries)
    share, distance = 1.0, 0.0
    for hits, best in zip(found, rows.brute_force(queries, run.sizes.k), strict=True):
        share = min(share, len(np.intersect1d(hits.slots, best.slots)) / len(best.slots))
        distance = max(distance, float(np.abs(hits.scores - best.scores).max()))
    yield Figure(f"share of the best {run.sizes.k} by brute force, worst query", share, _FOUND)
    yield Figure("largest difference of a score", distance, 1e-4, "at_most")


def _searches(run: Run, rows: FilledRows, rate: int) -> Iterator[Figure]:
    upserts = Upserts(rows, rate) if rate else None
    beside: AbstractContextManager[object] = upserts.running() if upserts else nullcontext()
    has_aims = rows.num_rows <= _AIM_POSTS
    with beside:
        for batch in run.sizes.batches:
            queries = rows.queries(batch)
            rows.scan(queries)
            taken = [run.device.seconds(partial(rows.scan, queries)) for _ in range(run.sizes.searches)]
            p50, p99 = (float(np.percentile(taken, percent)) for percent in (50, 99))
            aim = run.aim(_ONE_MS) if batch == 1 and has_aims else None
            yield Figure(f"{batch} at once, p50, ms", p50 * 1e3, aim, "at_most")
            yield Figure(f"{batch} at once, p99, ms", p99 * 1e3)
            floor_s = rows.num_rows * 2 * DIMENSION / run.device.copy_rate
            yield Figure(f"{batch} at once, share of the memory's floor", floor_s / p50)
            if batch == 1:
                yield Figure("the memory's floor, ms", floor_s * 1e3)
            if batch == run.sizes.batches[-1]:
                yield Figure(f"queries/s in batches of {batch}", batch / p50, run.aim(_PER_S) if has_aims else None)
    if upserts:
        yield Figure("upserts/s", upserts.per_second, run.aim(0.95 * rate))


def _faiss(run: Run, num_rows: int) -> Iterator[Figure]:
    """The same search without masks, of a matrix of the same size in half precision."""
    if not run.device.is_gpu:
        raise LeftOut("it is for a GPU")
    try:
        import faiss
        import faiss.contrib.torch_utils
    except ImportError as error:
        raise LeftOut(f"FAISS cannot be imported: {error}") from error
    if not hasattr(faiss, "StandardGpuResources"):
        raise LeftOut("this FAISS is without GPU")
    some = torch.nn.functional.normalize(torch.randn(1 << 20, DIMENSION, device=run.device.name)).half()
    matrix = some.repeat(-(-num_rows // len(some)), 1)[:num_rows]
    resources = faiss.StandardGpuResources()
    for batch in run.sizes.batches:
        queries = torch.randn(batch, DIMENSION, device=run.device.name).half()
        search = partial(faiss.knn_gpu, resources, queries, matrix, run.sizes.k, metric=faiss.METRIC_INNER_PRODUCT)
        yield Figure(f"{batch} at once, p50, ms", run.device.median_s(search) * 1e3)


def _tier(run: Run) -> Iterator[Figure]:
    """Everything that a search of the retriever takes, and the writes of the hot feed."""
    sizes = run.sizes
    settings = HotSettings(capacity=sizes.tier_posts, window_s=1e9)
    tier = MatrixHotTier(DIMENSION, settings.model_copy(update={"device": run.device.name}), IdTable())
    records = Records(DIMENSION)
    batches = list(records.new_posts(sizes.tier_posts))
    seconds = run.device.seconds(lambda: [tier.apply(batch) for batch in batches])
    yield Figure("upserts/s without searches", sizes.tier_posts / seconds)
    vectors = draw(sizes.batches[-1], DIMENSION, seed=1)
    queries = [HotQuery(vector, sizes.k, NO_FILTERS, np.empty(0, np.int32)) for vector in vectors]
    changes = records.changes(max(400, int(sizes.rate * sizes.neighbour_s)), sizes.tier_posts // 2)
    writer = Writer(tier, iter(changes), sizes.rate)
    for label, beside in (("", nullcontext()), (f", {sizes.rate} upserts/s beside", writer.writing())):
        with beside:
            one = [run.device.seconds(partial(tier.search, queries[:1])) for _ in range(sizes.searches)]
            yield Figure(f"one search{label}, p50, ms", float(np.median(one)) * 1e3)
            yield Figure(f"one search{label}, p99, ms", float(np.percentile(one, 99)) * 1e3)
            many = run.device.median_s(partial(tier.search, queries))
            yield Figure(f"searches/s in batches of {len(queries)}{label}", len(queries) / many)
