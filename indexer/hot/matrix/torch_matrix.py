"""The matrix of the hot tier on a GPU. What a search looks at is there twice: in main memory, and on the device, where
it can be lost.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np
import structlog

from indexer.errors import TierUnavailable
from indexer.hot.matrix.blocks import BLOCK
from indexer.hot.matrix.device_errors import is_out_of_memory, translated_errors
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
        rows = self._device_rows  # once: a search that fails takes them away at any time
        if rows is None:
            return _TorchView(self, None, TierUnavailable("the hot tier's device failed, and is not repaired yet"))
        try:
            with translated_errors():
                return _TorchView(self, rows, rows.view(num_slots))
        except TierUnavailable as error:
            self.fail_to_read(rows, error)
            return _TorchView(self, rows, error)

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

    def fail_to_read(self, rows: DeviceRows | None, error: TierUnavailable) -> None:
        """Any thread may call this. Without memory for a search the rows are as they were, and others may give some
        back."""
        if not is_out_of_memory(error.__cause__):
            self._fail(rows, error)

    def _fail(self, rows: DeviceRows | None, error: TierUnavailable) -> None:
        """Rows that were copied anew since stay."""
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
                self._fail(rows, error)


class _TorchView:
    """Implements `View`."""

    def __init__(self, matrix: TorchMatrix, rows: DeviceRows | None, view: DeviceView | TierUnavailable) -> None:
        """`view`: of these rows, or why there is none."""
        self._matrix = matrix
        self._rows = rows
        self._view = view

    def scan(self, queries: Sequence[ScanQuery]) -> list[ScannedSlots]:
        if isinstance(self._view, TierUnavailable):
            raise self._view
        try:
            with translated_errors():
                return self._view.scan(queries)
        except TierUnavailable as error:
            self._matrix.fail_to_read(self._rows, error)
            raise
