"""The overview: is it fresh, and where does it hang?"""

from typing import Final

from deploy.boards.board import Board, Lines, Number, Query, Row, or_zero, quantile, rate, refused_and_late

_FRESH: Final = 'nearline_freshness_seconds{tier="hot"}'

OVERVIEW: Final = Board(
    "overview",
    "overview",
    "Is it fresh? Where does it hang? Do members get whole answers?",
    [
        Row(
            "Now",
            [
                Number(
                    "Events found within 60 s",
                    "percentunit",
                    'sum(rate(nearline_freshness_seconds_bucket{tier="hot",le="60.0"}[5m])) '
                    '/ sum(rate(nearline_freshness_seconds_count{tier="hot"}[5m]))',
                    "Of the events of the last five minutes that can be found. A stage that stands still makes none.",
                    bad_below=0.99,
                ),
                Number(
                    "Oldest event on its way",
                    "s",
                    'max(nearline_stage_oldest_record_seconds{stage!="trending"})',
                    "For how long the oldest record of any stage has waited.",
                    bad_from=60,
                ),
                Number(
                    "Stands still",
                    "s",
                    "max(nearline_standing_still_seconds)",
                    "For how long the stage that stands still the longest has done so. 0: none does.",
                    bad_from=10,
                ),
                Number(
                    "Whole answers",
                    "percentunit",
                    '(sum(rate(nearline_retrieve_answers_total{outcome="whole"}[5m])) or vector(0)) / (('
                    "sum(rate(nearline_retrieve_answers_total[5m])) or vector(0)) "
                    "+ sum(rate(nearline_refused_requests_total[5m])) + sum(rate(nearline_late_requests_total[5m])))",
                    "Of the questions of the last five minutes; refused and late ones have none, and those that fail.",
                    bad_below=0.999,
                ),
                Number(
                    "Alerts",
                    "short",
                    or_zero('count(ALERTS{alertstate="firing"})'),
                    "Those that fire now. Each names its page.",
                    bad_from=1,
                ),
                Number(
                    "Broker answers",
                    "bool_yes_no",
                    "min(nearline_monitor_broker_up)",
                    "Whether the monitor reaches Kafka.",
                    bad_below=1,
                ),
            ],
        ),
        Row(
            "Is it fresh?",
            [
                Lines(
                    "From an event to its effect",
                    "s",
                    [
                        Query(quantile(0.5, _FRESH), "p50"),
                        Query(quantile(0.99, _FRESH), "p99"),
                        Query(quantile(0.99, 'nearline_freshness_seconds{tier="hot",kind="delete"}'), "p99 of deletes"),
                    ],
                    "Until it can be found, in the hot tiers of all generations that are open.",
                ),
                Lines(
                    "The same by tier and kind, p99",
                    "s",
                    [Query(quantile(0.99, "nearline_freshness_seconds", ",tier,kind"), "{{tier}} {{kind}}")],
                    "The cold tier is later; that matters only for what has left the hot one.",
                ),
                Lines(
                    "Canaries",
                    "s",
                    [
                        Query(quantile(0.99, "nearline_canary_searchable_seconds"), "found after, p99"),
                        Query(quantile(0.99, "nearline_canary_gone_seconds"), "gone after, p99"),
                        Query(
                            "max by (generation) (nearline_canary_newest_success_age_seconds)", "newest {{generation}}"
                        ),
                    ],
                    "Posts that the monitor sends, looks for, and deletes.",
                ),
            ],
        ),
        Row(
            "Where does it hang?",
            [
                Lines(
                    "Oldest record by stage",
                    "s",
                    [
                        Query(
                            "max by (stage, generation) (nearline_stage_oldest_record_seconds)",
                            "{{stage}} {{generation}}",
                        )
                    ],
                    "The first stage of the way that grows is the one that hangs: contexts, encode, index.",
                ),
                Lines(
                    "Records that wait",
                    "short",
                    [Query("sum by (consumergroup) (kafka_consumergroup_lag)", "{{consumergroup}}")],
                    "By consumer group, also of groups that are down.",
                ),
                Lines(
                    "Time that stages have stood still",
                    "s",
                    [Query("max by (stage, generation) (nearline_standing_still_seconds)", "{{stage}} {{generation}}")],
                    "0 while it moves or has nothing to do.",
                ),
            ],
        ),
        Row(
            "How much?",
            [
                Lines(
                    "Records",
                    "cps",
                    [Query(rate("kafka_topic_partition_current_offset", "topic"), "{{topic}}")],
                    "What is written to each topic, with the control records of transactions.",
                ),
                Lines(
                    "Answers",
                    "reqps",
                    [
                        Query(rate("nearline_retrieve_answers_total", "outcome"), "{{outcome}}"),
                        *refused_and_late(),
                    ],
                    "The monitor's canaries count too.",
                    stacked=True,
                ),
                Lines(
                    "Dead letters",
                    "short",
                    [Query(or_zero("sum by (stage, cause) (nearline_dead_letters)"), "{{stage}} {{cause}}")],
                    "Those that nobody has replayed or dropped.",
                ),
            ],
        ),
        Row(
            "Processes",
            [
                Lines(
                    "Memory",
                    "bytes",
                    [Query("sum by (process) (process_resident_memory_bytes)", "{{process}}")],
                    "Of each process that has metrics.",
                ),
                Lines(
                    "Processor",
                    "short",
                    [Query(rate("process_cpu_seconds_total", "process"), "{{process}}")],
                    "In cores.",
                ),
                Lines(
                    "Room on disk",
                    "bytes",
                    [Query("min by (instance) (nearline_data_folder_free_bytes)", "{{instance}}")],
                    "Left in the file system of each data folder.",
                ),
                Lines(
                    "Running",
                    "short",
                    [Query("min by (process) (nearline_process_up)", "{{process}}")],
                    "1 while it runs; 0 while it is gone or stopped by a signal.",
                ),
                Lines(
                    "Restarts",
                    "short",
                    [Query("sum by (process) (increase(nearline_process_restarts_total[15m]))", "{{process}}")],
                    "Of the last 15 minutes.",
                ),
            ],
        ),
    ],
)
