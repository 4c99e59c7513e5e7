"""Sets up a process's log: JSON lines on stderr, or readable lines on a terminal. Libraries log the same way.

Nothing here writes settings or requests, so no key or password gets into a log from here.
"""

import logging
import logging.config
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

_SHARED: Final[tuple[Any, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)
_QUIETED: Final = (
    "faust",
    "mode",
    "aiokafka",
    "transformers",
    "httpx",
    "httpcore",
    "uvicorn",
    "asyncio",
    "sentence_transformers",
)


def configure(process: str, level: str) -> None:
    """Call once, when a process starts. Every line names `process`."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(process, sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
    for name in _QUIETED:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def configure_command(level: str) -> None:
    """For a command, whose stdout is for what it prints. What our own modules log goes to stderr: warnings, and all of
    it at the level debug."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_SHARED, _readable_lines(colors=sys.stderr.isatty())],
        wrapper_class=structlog.make_filtering_bound_logger(
            number if number == logging.DEBUG else max(number, logging.WARNING)
        ),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def _readable_lines(*, colors: bool) -> structlog.dev.ConsoleRenderer:
    # Where rich is installed, structlog's own tracebacks show local variables: a request's headers, with the key.
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)


def _formatter(process: str, on_terminal: bool) -> logging.Formatter:
    def name_process(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        # Threads that libraries start do not inherit our context variables.
        return {"process": process, **event}

    last: list[Any] = (
        [_readable_lines(colors=True)]
        if on_terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=list(_SHARED),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, name_process, *last],
    )
