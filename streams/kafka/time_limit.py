"""A time limit for a call of the Kafka client that does not keep its own."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread

from streams.errors import KafkaUnavailable


def call_within(timeout_s: float, doing: str, call: Callable[[], None]) -> None:
    """Raises what the call raises, and KafkaUnavailable if it has not returned after `timeout_s`. Then it may go on for
    ever, in a thread of its own that does not keep the process from ending; nobody hears of its end. So the caller must
    not use the client any more."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            call()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    Thread(target=run, name=doing, daemon=True).start()
    wait([done], timeout_s)
    if not done.done():
        raise KafkaUnavailable(
            f"Kafka: {doing} has not ended within {timeout_s:.0f} s, and the client has not given up by itself"
        )
    done.result()
