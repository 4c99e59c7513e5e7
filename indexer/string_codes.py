"""Strings as small numbers, so that a filter on them is a comparison of arrays."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

_FEW: Final = 8


class StringCodes:
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

    def among(self, codes_N: npt.NDArray[np.int32], names: Iterable[str]) -> npt.NDArray[np.bool_]:
        """(N,): whether the code's string is one of these."""
        wanted = [self._codes[name] for name in names if name in self._codes]
        if len(wanted) <= _FEW:
            # A look into a table costs eight comparisons.
            among = np.zeros(len(codes_N), np.bool_)
            for code in wanted:
                among |= codes_N == code
            return among
        table = np.zeros(len(self._names), np.bool_)
        table[wanted] = True
        return np.asarray(table[codes_N])
