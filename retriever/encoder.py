"""The query encoder while it loads: a query in words needs a model, all else can be answered before it is warm."""

from collections.abc import Callable
from threading import Lock, Thread
from typing import Protocol

import structlog

from retriever.errors import RetrieverUnavailable
from schemas.embeddings import Vector

_log = structlog.get_logger(__name__)


class QueryEncoder(Protocol):
    """What the retriever needs of a model package. Called by one thread at a time; computes for milliseconds."""

    def encode_text(self, text: str) -> Vector:
        """float32 (D,), of length one, comparable with the posts' vectors of the same generation."""
        ...


class WarmingEncoder:
    """Loads the model in a thread of its own, so that the service can listen meanwhile. Any thread may ask."""

    def __init__(self, load: Callable[[], QueryEncoder]) -> None:
        """`load` returns a warm encoder."""
        self._load = load
        self._lock = Lock()
        self._encoder: QueryEncoder | None = None
        self._failure: str | None = None
        self._thread = Thread(target=self._run, name="warm-up", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    @property
    def problem(self) -> str | None:
        """One sentence while there is no model; None when it is warm."""
        if self._encoder is not None:
            return None
        return self._failure or "the model is still warming up"

    def encode_text(self, text: str) -> Vector:
        """Raises RetrieverUnavailable while there is no model."""
        if self._encoder is None:
            raise RetrieverUnavailable(self.problem or "the model is still warming up")
        with self._lock:
            return self._encoder.encode_text(text)

    def _run(self) -> None:
        try:
            self._encoder = self._load()
        except Exception as error:
            self._failure = f"the model cannot be loaded: {error}"
            _log.exception("model not loaded")
