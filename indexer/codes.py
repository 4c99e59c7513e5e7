"""Strings as small numbers, so that a filter on them is one look into a table."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


class Codes:
    def __init__(self) -> None:
        self._codes: dict[str | None, int] = {}
        self._names: list[str | None] = []

    def code(self, name: str | None) -> int:
        code = self._codes.get(name)
        if code is None:
            code = self._codes[name] = len(self._names)
            self._names.append(name)
        return code

    def name(self, code: int) -> str | None:
        return self._names[code]

    def among(self, names: Iterable[str]) -> npt.NDArray[np.bool_]:
        """By code, whether its string is one of these."""
        table = np.zeros(len(self._names), np.bool_)
        table[[self._codes[name] for name in names if name in self._codes]] = True
        return table
