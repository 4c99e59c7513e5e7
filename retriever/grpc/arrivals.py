"""Bounds what messages may cost that have not arrived yet: how many arrive at the same time, and how long each takes.

As soon as a message is read, gRPC makes room for all of it: 8 MB for a client that has sent only its length. Of a
message that nobody reads it takes 64 kB.
"""

import asyncio
from typing import Any, Final

import grpc

from retriever.errors import DeadlineExceeded, RequestRefused, RetrieverBusy
from schemas.api import ProblemCode

AT_ONCE: Final = 32
"""So all messages that arrive take at most 256 MB. Almost all of them come together with the headers of their calls,
and take no time."""
WITHIN_S: Final = 30.0
"""Long enough for the largest message over a line of 2 MBit/s, as for HTTP."""
SLOW_S: Final = 1.0
"""When there is no room, the oldest message makes room if it has been arriving for so long."""

_TOO_MANY: Final = "too many requests arrive at the same time; try again"
_TOO_SLOW: Final = "the request did not arrive in time"
_NO_MESSAGE: Final = "the call ended without a message"


class Arrivals:
    """Belongs to one event loop, in which all calls are handled."""

    def __init__(self) -> None:
        self._arriving: dict[asyncio.Timeout, float] = {}
        """The time limit of each message, and since when it has been arriving. The oldest comes first."""

    async def read(self, context: Any) -> bytes:
        """The next message of the call, not decoded. Raises RetrieverBusy, DeadlineExceeded, and RequestRefused if
        there is none: that is so too if gRPC has refused it because it is too large."""
        now_s = asyncio.get_running_loop().time()
        if len(self._arriving) >= AT_ONCE:
            self._make_room(now_s)
        limit = asyncio.timeout_at(now_s + WITHIN_S)
        try:
            async with limit:
                self._arriving[limit] = now_s
                message = await context.read()
        except TimeoutError:
            raise DeadlineExceeded(_TOO_SLOW, code=ProblemCode.TOO_SLOW) from None
        finally:
            self._arriving.pop(limit, None)
        if message is grpc.aio.EOF:
            raise RequestRefused(_NO_MESSAGE, code=ProblemCode.BAD_BODY)
        return bytes(message)

    def _make_room(self, now_s: float) -> None:
        oldest, since_s = next(iter(self._arriving.items()))
        if now_s - since_s < SLOW_S:
            raise RetrieverBusy(_TOO_MANY, code=ProblemCode.BUSY, retry_after_s=SLOW_S)
        if not oldest.expired():  # its own time is over, and its task has not run since
            oldest.reschedule(now_s)
        del self._arriving[oldest]
