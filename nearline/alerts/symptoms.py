"""The rules of Prometheus about single symptoms: what no budget of an objective shows, or shows too late. Pure.

Every alert says what users notice, and names the page that says what to do.
"""

from collections.abc import Iterator
from typing import Final

from nearline.alerts.objectives import Limits
from nearline.alerts.rule import Alert

SERVING: Final = 'on (generation) group_left () max by (generation) (nearline_generation_info{state="serving"})'
"""Multiplied with it, only what belongs to the serving generation is left."""
RECALL: Final = (
    "sum by (tier, generation) (increase(nearline_recall_found_candidates_total[30m])) "
    "/ sum by (tier, generation) (increase(nearline_recall_expected_candidates_total[30m]))"
)
"""Of the answers of half an hour that were given once more, exactly."""


def symptoms(limits: Limits) -> Iterator[Alert]:
    for made in (_of_the_stream, _of_what_all_need, _of_answers, _of_records, _of_processes):
        yield from made(limits)


def _of_the_stream(limits: Limits) -> Iterator[Alert]:
    """Of the way from an event to its being found. A stage that stands still makes no late events: it makes none."""
    yield Alert(
        "NearlineStageStandsStill",
        'max by (stage, generation) (nearline_standing_still_seconds{stage!~"broker|canary"}) '
        f"> {limits.stands_still_s:g}",
        "15s",
        "page",
        "the stage {{ $labels.stage }} {{ $labels.generation }} has stood still for {{ $value | humanizeDuration }}",
        "stage-stands-still",
    )
    yield Alert(
        "NearlineEventsWait",
        f'max by (stage) (nearline_stage_oldest_record_seconds{{stage="contexts"}}) > {limits.waits_s:g} or '
        f"max by (stage) (nearline_stage_oldest_record_seconds"
        f'{{stage="encode"}} * {SERVING}) > {limits.waits_s:g}',
        "2m",
        "page",
        "the oldest event has waited {{ $value | humanizeDuration }} for the stage {{ $labels.stage }}",
        "freshness",
    )
    yield Alert(
        "NearlineCanaryLost",
        'max by (generation) (nearline_standing_still_seconds{stage="canary"}) > 0',
        "30s",
        "page",
        "posts that were sent to see whether they are found are not, or stay after their deletion, for "
        "{{ $value | humanizeDuration }}: generation {{ $labels.generation }}",
        "canary-lost",
    )
    # Of one that is not sent, because nobody can look for it, none is lost.
    yield Alert(
        "NearlineNoCanaryPasses",
        f"max by (generation) (nearline_canary_newest_success_age_seconds) * {SERVING} > {limits.no_canary_s:g}",
        "1m",
        "ticket",
        "for {{ $value | humanizeDuration }} no post that was sent to see whether it is found has been found and "
        "deleted again, and perhaps none is sent: generation {{ $labels.generation }}",
        "no-canary-passes",
    )


def _of_what_all_need(limits: Limits) -> Iterator[Alert]:
    """Without these nothing else is known, or goes on."""
    yield Alert(
        "NearlineBrokerAway",
        "nearline_monitor_broker_up == 0",
        "1m",
        "page",
        "Kafka does not answer: nothing new can be found, and answers become partial",
        "broker-away",
    )
    yield Alert(
        "NearlineMonitorAway",
        "absent(nearline_monitor_broker_up) or max(nearline_monitor_look_age_seconds) > 60 "
        "unless on () nearline_monitor_broker_up == 0",
        "2m",
        "page",
        "nobody measures whether stages stand still, and encode and index are not scaled",
        "monitor-away",
    )
    yield Alert(
        "NearlineDiskFilling",
        f"nearline_data_folder_free_bytes < {limits.disk_free:g} * nearline_data_folder_size_bytes or "
        "nearline_data_folder_free_bytes < 0.5 * nearline_data_folder_size_bytes "
        f"and predict_linear(nearline_data_folder_free_bytes[1h], {limits.disk_full_in_s:g}) < 0",
        "5m",
        "page",
        "the disk of the data folder has only {{ $value | humanize1024 }}B left: {{ $labels.instance }}",
        "disk-filling",
    )


def _of_answers(limits: Limits) -> Iterator[Alert]:
    """Of what members get."""
    yield Alert(
        "NearlineAnswersPartial",
        f"max by (generation) (nearline_ready) * {SERVING} == 0",
        "2m",
        "page",
        "no retriever can give whole answers",
        "retrieval",
    )
    yield Alert(
        "NearlineRetrieverAway",
        "absent(nearline_ready)",
        "2m",
        "page",
        "no retriever answers Prometheus, or none has a generation open",
        "retrieval",
    )
    yield Alert(
        "NearlinePositionBehindFloor",
        f"min by (generation, partition) (nearline_hot_floor - nearline_cold_position) * {SERVING} > 0",
        "1m",
        "page",
        '{{ $value | printf "%.0f" }} records of the partition {{ $labels.partition }} are in no tier: the hot one '
        "does not reach back to where the cold one is",
        "position-behind-floor",
    )
    yield Alert(
        "NearlineRecallLow",
        f"{RECALL} < {limits.recall:g} and on (generation) "
        f"sum by (generation) (increase(nearline_recall_answers_total[30m])) >= {limits.at_least}",
        "0s",
        "ticket",
        "answers of the generation {{ $labels.generation }} find only {{ $value | humanizePercentage }} of what exact "
        "ones find in the {{ $labels.tier }} tier",
        "recall",
    )
    yield Alert(
        "NearlineCertificateEnds",
        f"min by (instance) (nearline_certificate_end_timestamp_seconds) - time() < {limits.certificate_ends_in_s:g}",
        "5m",
        "ticket",
        "clients refuse the certificate of {{ $labels.instance }} in {{ $value | humanizeDuration }}",
        "certificate-ends",
    )


def _of_records(limits: Limits) -> Iterator[Alert]:
    """Of single records."""
    letters = "max by (stage, cause) (nearline_dead_letters)"
    yield Alert(
        "NearlineDeadLetters",
        f"{letters} - (max by (stage, cause) (nearline_dead_letters offset 10m) or 0 * {letters}) > 0 "
        # When Prometheus sees the monitor again, all letters are new to it.
        'and on () sum(delta(kafka_topic_partition_current_offset{topic="dead-letters"}[10m])) > 0',
        "0s",
        "ticket",
        '{{ $value | printf "%.0f" }} records of the last 10 minutes can never succeed at {{ $labels.stage }}, and are '
        "left out: {{ $labels.cause }}",
        "dead-letters",
    )
    yield Alert(
        "NearlineRecordsSkipped",
        "sum by (generation) (increase(nearline_hot_skipped_records_total[10m])) > 0 "
        "or sum by (generation) (increase(nearline_member_skipped_records_total[10m])) > 0",
        "0s",
        "ticket",
        'a retriever cannot take {{ $value | printf "%.0f" }} records of the generation {{ $labels.generation }}',
        "dead-letters",
    )
    yield Alert(
        "NearlineErasureLate",
        f"max(nearline_cold_oldest_erasure_seconds) > 0.9 * {limits.erase_within_s:g} or "
        f"max(nearline_contexts_compaction_age_seconds) > 0.9 * {limits.erase_within_s:g}",
        "5m",
        "page",
        "what was deleted {{ $value | humanizeDuration }} ago may still be in files, of the cold tier or of the rows "
        "of contexts",
        "erasure-late",
    )


def _of_processes(limits: Limits) -> Iterator[Alert]:
    """Of processes and generations."""
    yield Alert(
        "NearlineProcessRestarts",
        "sum by (process) (increase(nearline_process_restarts_total[15m])) > 3",
        "0s",
        "ticket",
        "the process {{ $labels.process }} ends again and again",
        "process-restarts",
    )
    yield Alert(
        "NearlineEncodeOutOfMemory",
        "sum(increase(nearline_encode_out_of_memory_total[1h])) > 0",
        "0s",
        "ticket",
        "the device of encode ran out of memory; its batches are smaller now, and it is slower",
        "encode-out-of-memory",
    )
    yield Alert(
        "NearlineGenerationCanaryEnded",
        "max by (generation) (nearline_generation_canary_ended_timestamp_seconds) > 0",
        "0s",
        "ticket",
        "the generation {{ $labels.generation }} was the canary, and its answers left their bounds",
        "generation-canary-ended",
    )
    yield Alert(
        "NearlineGenerationsDamaged",
        "max(nearline_generations_damaged_records) > 0",
        "2m",
        "ticket",
        '{{ $value | printf "%.0f" }} records of the topic generations are refused, and the monitor '
        "has not mended them",
        "generations-damaged",
    )
