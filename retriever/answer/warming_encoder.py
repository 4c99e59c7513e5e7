"""The query encoder, and the time in which it loads. Only a query in words needs the model; all other requests are
answered before it is warm."""

from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Final, Protocol

import structlog

from encoders.errors import BadText, DeviceFull, EncodingFailed
from retriever.errors import RequestRefused, RetrieverUnavailable
from schemas.embeddings import Vector

_WARMING: Final = "the model is still warming up"
_NO_MEMORY: Final = "the device has no memory for the model now; it is tried again"
_NOT_LOADED: Final = "the model cannot be loaded; the log of the retriever says why"
"""Without the error itself, which may hold a path: `/readyz` shows this sentence to everybody, without an API key."""

_TRY_AGAIN_S: Final = 5.0

_log = structlog.get_logger(__name__)


class QueryEncoder(Protocol):
    """What the retriever needs of a model package. Called by one thread at a time; computes for milliseconds."""

    def encode_text(self, text: str) -> Vector:
        """float32 (D,), of length one, comparable with the posts' vectors of the same generation.

        Raises BadText when there is nothing to encode, EncodingFailed when the device fails.
        """
        ...

    def forget_unused(self, age_s: float) -> None:
        """Drops what texts have left in memory that nobody has asked for in the last `age_s` seconds. Called from
        another thread, also while it encodes."""
        ...


class WarmingEncoder:
    """Loads the model in its own thread, so that the service can already listen. Any thread may ask."""

    def __init__(self, load: Callable[[], QueryEncoder]) -> None:
        """`load` returns an encoder that is ready to encode."""
        self._load = load
        self._lock = Lock()
        self._encoder: QueryEncoder | None = None
        self._failure: str | None = None
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="warm-up", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """It is not loaded any more, if it has not been by now."""
        self._stopped.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    @property
    def problem(self) -> str | None:
        """One sentence why there is no model; None when it is warm."""
        if self._encoder is not None:
            return None
        return self._failure or _WARMING

    def encode_text(self, text: str, timeout_s: float) -> Vector:
        """Raises RequestRefused if the text cannot be encoded, RetrieverUnavailable while there is no model, if other
        texts keep it busy for `timeout_s`, or if that is over already."""
        encoder = self._encoder
        if encoder is None:
            raise RetrieverUnavailable(self.problem or _WARMING)
        if timeout_s <= 0 or not self._lock.acquire(timeout=timeout_s):
            raise RetrieverUnavailable("the model is busy with other texts; try again")
        try:
            return encoder.encode_text(text)
        except BadText as error:
            raise RequestRefused(f"text: {error}") from error
        except EncodingFailed as error:
            raise RetrieverUnavailable(str(error)) from error
        finally:
            self._lock.release()

    def forget_unused(self, age_s: float) -> None:
        if self._encoder is not None:
            self._encoder.forget_unused(age_s)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._encoder = self._load()
                return
            except DeviceFull as error:
                self._failure = _NO_MEMORY
                _log.warning("no memory for the model; it is tried again", error=str(error))
            except Exception as error:
                self._failure = _NOT_LOADED
                _log.exception("model not loaded", error=str(error))
                return
            self._stopped.wait(_TRY_AGAIN_S)
