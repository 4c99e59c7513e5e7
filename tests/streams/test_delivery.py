"""What was sent is not taken for delivered before the broker has it."""

from typing import Final

import pytest
from confluent_kafka import Message, Producer

from streams import delivery
from streams.delivery import deliver_dead_letters
from streams.errors import KafkaUnavailable
from streams.kafka import producer_config
from streams.republish import republish_record, send_all
from streams.settings import KafkaSettings

NOBODY: Final = KafkaSettings(bootstrap_servers="127.0.0.1:1")
RECORD: Final = Message(topic="posts", partition=0, offset=0, key=b"p", value=b"p")


@pytest.mark.parametrize(("given_up_ms", "sentence"), [(60_000, "1 dead letters were not taken"), (100, "timed out")])
def test_letters_that_nobody_takes_are_missed(monkeypatch: pytest.MonkeyPatch, given_up_ms: int, sentence: str) -> None:
    """Whether the client still tries or has given up."""
    monkeypatch.setattr(delivery, "DELIVERY_TIMEOUT_S", 1.5)
    producer = Producer(producer_config(NOBODY, **{"message.timeout.ms": given_up_ms}))
    with pytest.raises(KafkaUnavailable, match=sentence):
        deliver_dead_letters(producer, "index", [(RECORD, "cause")])
    producer.purge()
    producer.flush(5)


def test_what_is_asked_for_again_and_nobody_takes_is_missed() -> None:
    with pytest.raises(KafkaUnavailable, match="timed out"):
        send_all(NOBODY, [republish_record(b"p")], timeout_s=0.2)
