"""The topic that says in which forms a cluster was written."""

import pytest

from schemas.errors import NewerForm
from schemas.forms import IN_KAFKA, Form
from schemas.topics import FORMS, TopicSpec
from streams.kafka.forms import refuse_newer_forms, write_forms
from streams.kafka.records import Output
from streams.kafka.sending import send_all
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import keys_and_values

SPEC = TopicSpec(FORMS, "state", partitions=1)
TWO = {**IN_KAFKA, "contexts": Form(newest=2, written=2)}
RECORDS = {kind.encode(): b"1" for kind in IN_KAFKA}


def test_versions_agree_or_leave_it_alone(clean_topics: RunningBroker) -> None:
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers)
    assert refuse_newer_forms(kafka) == {}, "a cluster of the version before there were forms"
    ensure_topics(kafka, [SPEC])
    for known in (IN_KAFKA, IN_KAFKA, TWO):
        write_forms(kafka, refuse_newer_forms(kafka, known), known)
    records = keys_and_values(kafka, FORMS)
    assert records == [*RECORDS.items(), (b"contexts", b"2")], "nothing is written twice"

    with pytest.raises(NewerForm, match="contexts of form 2, and this version reads them up to form 1"):
        refuse_newer_forms(kafka)
    assert keys_and_values(kafka, FORMS) == records
    write_forms(kafka, refuse_newer_forms(kafka, {**TWO, "contexts": Form(newest=2, written=1)}), IN_KAFKA)
    assert keys_and_values(kafka, FORMS) == records, "rolled back to the version that reads both"

    send_all(kafka, [Output(FORMS, b"contexts", b"two")])
    with pytest.raises(NewerForm, match="contexts of form"):
        refuse_newer_forms(kafka, TWO)
