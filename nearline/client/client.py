"""`nearline.Client`: asks the retriever from ordinary code."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self, TypeVar, Unpack

import grpc

from nearline.client import calls
from nearline.client.answer import Answer, Status, Vectors
from nearline.client.connections import Connections
from nearline.client.failures import failure_of, request_id_of
from nearline.client.question import NO_TRACE, Question, QuestionFields, SimilarFields, Trace
from nearline.client.retries import Attempts, RetryBudget
from retriever.errors import RetrieverUnavailable

R = TypeVar("R")


class Client:
    """For all threads of a process. Make it after a fork, and call `close` at the end, or use `with`.

    Every method waits at most `timeout_s`, connecting and trying again included, and raises a RetrieverError:
    RetrieverUnavailable (with RetrieverBusy and DeadlineExceeded) if the same call may succeed later, RequestRefused
    (with NotAllowed) if it never will. What failed in passing it tries again by itself while there is time.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        ca_file: Path | str | None = None,
        tls_name: str | None = None,
        timeout_s: float = calls.TIMEOUT_S,
        connections: int = 2,
    ) -> None:
        """`url` is where the retriever listens for gRPC: `host:port`, or `https://host:port` for TLS. `ca_file` is the
        authority that signed its certificate, in PEM; None: one of gRPC's own list. `tls_name` is the name in the
        certificate if it is not the host of `url`. Calls take the connections in turn; behind a balancer each may lead
        to another retriever. Nothing is connected before the first call.

        Raises RequestRefused for a bad URL or time, NotAllowed for a key that cannot be sent, BadCertificate."""
        self._timeout_s = calls.checked_timeout_s(timeout_s, calls.TIMEOUT_S)
        self._budget = RetryBudget()
        self._connections = Connections(
            url,
            calls.METHODS,
            api_key=api_key,
            ca_file=ca_file,
            tls_name=tls_name,
            number=connections,
            library=grpc,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for channel in self._connections.channels:
            channel.close()

    def retrieve(
        self, *, timeout_s: float | None = None, trace: Trace = NO_TRACE, **question: Unpack[QuestionFields]
    ) -> Answer:
        """The candidates of a member, a text, a vector or posts: `retrieve(member_id="m7", k=100)`. The arguments are
        the fields of `Question`."""
        return self._run(calls.retrieve(Question(**question)), timeout_s, trace)

    def retrieve_batch(
        self, questions: Sequence[Question], *, timeout_s: float | None = None, trace: Trace = NO_TRACE
    ) -> list[Answer]:
        """The answers to 1 to 64 questions, in their order. If one of them is refused, all are."""
        return self._run(calls.retrieve_batch(questions), timeout_s, trace)

    def similar(
        self,
        post_ids: Sequence[str],
        *,
        timeout_s: float | None = None,
        trace: Trace = NO_TRACE,
        **question: Unpack[SimilarFields],
    ) -> Answer:
        """The posts whose vectors are nearest to the mean of these posts' vectors."""
        return self._run(calls.similar(Question(post_ids=post_ids, **question)), timeout_s, trace)

    def vectors(
        self,
        post_ids: Sequence[str],
        *,
        generation: str | None = None,
        dimension: int | None = None,
        timeout_s: float | None = None,
        trace: Trace = NO_TRACE,
    ) -> Vectors:
        """The vectors of 1 to 1,000 posts. `dimension`: cut to so many numbers, and of length one again."""
        return self._run(calls.vectors(post_ids, generation, dimension), timeout_s, trace)

    def status(self, *, timeout_s: float = calls.STATUS_TIMEOUT_S) -> Status:
        """Processes, lag, tiers, freshness: for people who look after the instance."""
        return self._run(calls.status(), timeout_s, NO_TRACE)

    def ready(self, *, timeout_s: float = calls.READY_TIMEOUT_S) -> bool:
        """True if the retriever can give whole answers now. False also if it does not answer."""
        try:
            return self._run(calls.ready(), timeout_s, NO_TRACE)
        except RetrieverUnavailable:
            return False

    def _run(self, call: calls.Call[R], timeout_s: float | None, trace: Trace) -> R:
        metadata = self._connections.metadata(trace)
        attempts = Attempts(self._budget, calls.checked_timeout_s(timeout_s, self._timeout_s))
        while True:
            left_s = attempts.left_s()
            call.tell_deadline(left_s)
            try:
                method = self._connections.method(call.method)
                message, answered = method.with_call(call.message, timeout=left_s, metadata=metadata)
            except grpc.RpcError as error:
                time.sleep(attempts.pause_s(failure_of(error, self._connections.target)))
            else:
                return call.read(message, request_id_of(answered.initial_metadata(), answered.trailing_metadata()))
