"""One process of the fuzzer: `python -m tests.fuzz.child MODULE:TARGET [libFuzzer's options]`.

Exit status 0: all inputs done; 70: one took too long; else: one made the target raise, or the process die.
"""

import importlib
import sys
from typing import Final

import atheris

OURS: Final = ["schemas", "contexts", "encoders", "indexer", "streams", "retriever"]


def main() -> None:
    module, _, name = sys.argv.pop(1).partition(":")
    with atheris.instrument_imports(include=OURS):
        target = getattr(importlib.import_module(module), name)
        mutator = importlib.import_module("tests.fuzz.mutator").mutator_for(name)
    atheris.Setup(sys.argv, target, **({} if mutator is None else {"custom_mutator": mutator}))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
