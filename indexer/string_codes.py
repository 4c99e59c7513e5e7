"""Strings as small numbers, so that a filter on them is a comparison of arrays."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

_FEW_CODES: Final = 8


class StringCodes:
    """Gives every string its own code: 0, 1, 2, in the order in which the strings come. None counts as a string."""

    def __init__(self) -> None:
        self._codes: dict[str | None, int] = {}
        self._strings: list[str | None] = []

    def code(self, string: str | None) -> int:
        """The string's code. A string without a code gets the next one."""
        code = self._codes.get(string)
        if code is None:
            code = self._codes[string] = len(self._strings)
            self._strings.append(string)
        return code

    def codes(self, strings: Sequence[str | None]) -> npt.NDArray[np.int32]:
        """The code of each string. Those without a code get the next ones."""
        found = list(map(self._codes.get, strings))
        if None in found:
            found = [self.code(string) for string in strings]
        return np.array(found, np.int32)

    def find(self, string: str | None) -> int | None:
        """The string's code; None if it has none."""
        return self._codes.get(string)

    def string(self, code: int) -> str | None:
        return self._strings[code]

    def among(self, codes_N: npt.NDArray[np.int32], strings: Iterable[str]) -> npt.NDArray[np.bool_]:
        """(N,): for each code, whether it is the code of one of these strings."""
        codes = [self._codes[string] for string in strings if string in self._codes]
        if len(codes) <= _FEW_CODES:
            # A look-up in a table costs as much as eight comparisons.
            among = np.zeros(len(codes_N), np.bool_)
            for code in codes:
                among |= codes_N == code
            return among
        table = np.zeros(len(self._strings), np.bool_)
        table[codes] = True
        return np.asarray(table[codes_N])
