"""
TrainerError
├── BadEvents       the events hold nothing to learn from, or nothing to measure with
├── BadStart        the settings, the starting point or the work folder of a training cannot be used
├── BadBaseline     the folder of a baseline cannot be used, or would run code
├── BadRegistry     the registry cannot be read or written, or does not hold what was asked for
└── NotBetter       the quality gate: the package is not better than the one it would follow, or than a baseline
"""


class TrainerError(Exception):
    """Base of what this package raises. The message is one sentence."""


class BadEvents(TrainerError):
    """Says what is missing and what to give."""


class BadStart(TrainerError):
    """Names the folder or the setting, and how to mend it."""


class BadBaseline(TrainerError):
    """Names the folder, and what is wrong with it."""


class BadRegistry(TrainerError):
    """Names the registry or the package."""


class NotBetter(TrainerError):
    """Says the recall of both packages."""
