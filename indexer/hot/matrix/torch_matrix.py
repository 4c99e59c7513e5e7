"""The matrix of the hot tier on a GPU. What a search looks at is there twice: in main memory, and on the device, where
it can be lost.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import numpy as np
import structlog
import torch

from indexer.errors import TierUnavailable
from indexer.hot.matrix.blocks import BLOCK
from indexer.hot.matrix.device_rows import DeviceRows
from indexer.hot.matrix.device_scan import DeviceView
from indexer.hot.matrix.host_rows import HostRows
from indexer.hot.matrix.matrix import Fields, ScannedSlots, ScanQuery, View
from indexer.hot.slots import Slots
from schemas.embeddings import Vector

_NO_SLOTS: Final = np.empty(0, np.int64)

_log = structlog.get_logger(__name__)


class TorchMatrix(HostRows):
    """Implements `Matrix`. After an error of the device searches raise TierUnavailable until `repair` has copied
    everything to the device again; changes go on in main memory meanwhile."""

    def __init__(self, dimension: int, capacity: int, device: str) -> None:
        super().__init__(dimension)
        self._new_device_rows = partial(DeviceRows, dimension, capacity, device)
        self._device_rows: DeviceRows | None = self._new_device_rows()

    def reserve(self, num_slots: int) -> None:
        super().reserve(num_slots)
        self._on_device(lambda rows: rows.reserve(num_slots))

    def put(self, slots: Slots, vectors_KD: Vector, fields: Fields) -> None:
        super().put(slots, vectors_KD, fields)
        self._on_device(lambda rows: rows.put(slots, vectors_KD, fields))

    def clear(self, slots: Slots) -> None:
        super().clear(slots)
        self._on_device(lambda rows: rows.clear(slots))

    def flipping(self, live: Slots, dead: Slots) -> Callable[[], None]:
        flip_on_host = super().flipping(live, dead)
        flips: list[Callable[[], None]] = []
        self._on_device(lambda rows: flips.append(rows.flipping(live, dead)))

        def flip() -> None:
            flip_on_host()
            # These are the same rows, if they are still there: the thread that writes is the one that repairs.
            self._on_device(lambda _: flips[0]())

        return flip

    def view(self, num_slots: int) -> View:
        views: list[_TorchView] = []
        self._on_device(lambda rows: views.append(_TorchView(self, rows, rows.view(num_slots))))
        return views[0] if views else _TorchView(self, None, None)

    def repair(self) -> None:
        if self._device_rows is not None:
            return
        try:
            with translated_errors():
                rows = self._copied()
        except TierUnavailable as error:
            _log.warning("the hot tier's device still fails", error=str(error))
            return
        self._device_rows = rows
        _log.info("the hot tier's device works again")

    def fail(self, rows: DeviceRows | None, error: TierUnavailable) -> None:
        """Any thread may call this. Rows that were copied anew since stay."""
        if self._device_rows is rows:
            self._device_rows = None
        _log.warning("the hot tier's device failed", error=str(error))

    def _copied(self) -> DeviceRows:
        rows = self._new_device_rows()
        rows.reserve(len(self.live))
        for first in range(0, len(self.live), BLOCK):
            slots = np.arange(first, min(first + BLOCK, len(self.live)))
            rows.put(slots, self.vectors(slots), self.fields(slots))
        rows.flipping(np.flatnonzero(self.live), _NO_SLOTS)()
        return rows

    def _on_device(self, action: Callable[[DeviceRows], object]) -> None:
        rows = self._device_rows  # once: a search that fails takes them away at any time
        if rows is not None:
            try:
                with translated_errors():
                    action(rows)
            except TierUnavailable as error:
                self.fail(rows, error)


class _TorchView:
    """Implements `View`."""

    def __init__(self, matrix: TorchMatrix, rows: DeviceRows | None, view: DeviceView | None) -> None:
        """The view of these rows; None for both if the device fails."""
        self._matrix = matrix
        self._rows = rows
        self._view = view

    def scan(self, queries: Sequence[ScanQuery]) -> list[ScannedSlots]:
        if self._view is None:
            raise TierUnavailable("the hot tier's device failed, and is not repaired yet")
        try:
            with translated_errors():
                return self._view.scan(queries)
        except TierUnavailable as error:
            # Without memory for the scan the rows are as they were, and others may give some back.
            if not isinstance(error.__cause__, torch.OutOfMemoryError):
                self._matrix.fail(self._rows, error)
            raise


@contextmanager
def translated_errors() -> Iterator[None]:
    """torch raises RuntimeError, or a class below it, for everything that a device does not do."""
    try:
        yield
    except RuntimeError as error:
        raise TierUnavailable(f"the hot tier's device failed: {str(error).partition(chr(10))[0]}") from error
