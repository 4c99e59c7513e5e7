"""
NearlineError     printed as one sentence; exit status 1
├── BadSettings   a wrong key or value in the file, the environment or a flag
├── AlreadyRuns   another `nearline up` or `nearline run` has this data folder
├── NotRunning    no instance runs on this data folder
├── BadRecording  recorded events hold a line that is no event
├── NotAnnounced  a package is published, but nobody was told on the topic models
├── NoTerminal    a command draws, and what it was given is no terminal
├── NotReady      the instance runs, but this part of it cannot be asked yet
├── StartFailed   a process of the instance could not be started
│   ├── PackageGone    the package of a generation does not lie on this machine
│   └── NoRoom         this machine has too little memory or disk for another generation
└── PlaceChanged  another generation, or none, lives where this process works: it ends and is started again
"""

import shlex
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("schemas", "contexts", "encoders", "indexer", "streams", "retriever", "trainer", "nearline")
_OURS: Final = frozenset(f"{package}.errors" for package in _PACKAGES)


def is_ours(error: BaseException) -> bool:
    """True for an error of our packages, whose message is a sentence for users. Compares the names of modules, so that
    none of the packages has to be imported."""
    return any(base.__module__ in _OURS for base in type(error).__mro__)


class NearlineError(Exception):
    """Base of the errors that end a command. The message is one sentence, printed without a traceback."""


class BadSettings(NearlineError):
    """Names the key and the mend."""


class AlreadyRuns(NearlineError):
    def __init__(self, data_dir: Path, what: str) -> None:
        super().__init__(f"{what} runs on {data_dir}; stop it, or give another folder with --data-dir")


class NotRunning(NearlineError):
    def __init__(self, data_dir: Path) -> None:
        super().__init__(
            f"nothing runs on {data_dir}; start it with: nearline up --data-dir {shlex.quote(str(data_dir))}"
        )


class NotAnnounced(NearlineError):
    def __init__(self, generation: str, cause: str) -> None:
        super().__init__(
            f"{generation} is published, but it is not announced on the topic models: {cause}; run the command again "
            "when that is mended"
        )


class NotReady(NearlineError):
    """Names the part."""


class NoTerminal(NearlineError):
    """Names the command that prints the same."""


class StartFailed(NearlineError):
    """Names the process and why."""


class PackageGone(StartFailed):
    """Names the generation, what is wrong and the mend."""

    def __init__(self, generation: str, cause: str) -> None:
        super().__init__(
            f"the package of the generation {generation} is gone: {cause}; bring it back there, or, if it serves, say "
            "with --package where it lies now"
        )


class NoRoom(StartFailed):
    """Names the generation, how much it needs, how much is free and missing, and the mend."""


class PlaceChanged(NearlineError):
    """Not a failure: the process works for a generation that has left its place."""

    def __init__(self, place: str, generation: str) -> None:
        super().__init__(f"the generation {generation} does not live at {place} any more")


class BadRecording(NearlineError):
    """Names file, line and field."""
