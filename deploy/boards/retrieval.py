"""The board of the retriever: what members get, how quickly, and from where."""

from typing import Final

from deploy.boards.board import Board, Lines, Query, Row, or_zero, quantile, rate, refused_and_late
from nearline.alerts.symptoms import RECALL

RETRIEVAL: Final = Board(
    "retrieval",
    "retrieval",
    "What members get, how quickly, and from where.",
    [
        Row(
            "What do members get?",
            [
                Lines(
                    "Answers",
                    "reqps",
                    [
                        Query(
                            rate("nearline_retrieve_answers_total", "outcome, generation"), "{{outcome}} {{generation}}"
                        )
                    ],
                    "Whole, partial, unavailable.",
                    stacked=True,
                ),
                Lines(
                    "Why not whole, or not their own",
                    "reqps",
                    [Query(or_zero(rate("nearline_answer_reasons_total", "reason")), "{{reason}}")],
                    "docs/serving.md has the codes. An answer may have several reasons.",
                ),
                Lines(
                    "Recall",
                    "percentunit",
                    [Query(RECALL, "{{tier}} {{generation}}")],
                    "Of the answers of half an hour that were given once more, exactly.",
                ),
                Lines(
                    "Candidates by tier",
                    "cps",
                    [Query(rate("nearline_candidates_total", "tier"), "{{tier}}")],
                    "",
                    stacked=True,
                ),
                Lines(
                    "Ready",
                    "short",
                    [Query("min by (process, generation) (nearline_ready)", "{{process}} {{generation}}")],
                    "1 when whole answers are possible.",
                ),
            ],
        ),
        Row(
            "How quickly?",
            [
                Lines(
                    "Steps, p99",
                    "s",
                    [Query(quantile(0.99, "nearline_retrieve_seconds", ",step"), "{{step}}")],
                    "",
                ),
                Lines(
                    "Steps, p50",
                    "s",
                    [Query(quantile(0.5, "nearline_retrieve_seconds", ",step"), "{{step}}")],
                    "",
                ),
                Lines(
                    "Requests",
                    "short",
                    [
                        Query("sum by (process) (nearline_requests_in_flight)", "{{process}} being answered"),
                        Query("sum by (process) (nearline_waiting_requests)", "{{process}} waiting"),
                    ],
                    "Now.",
                ),
                Lines(
                    "Refused and late",
                    "reqps",
                    refused_and_late(),
                    "Refused because they would have been late; begun and not answered in time.",
                ),
            ],
        ),
        Row(
            "From where?",
            [
                Lines(
                    "Room between both tiers",
                    "short",
                    [
                        Query(
                            "min by (partition, generation) (nearline_cold_position - nearline_hot_floor)",
                            "{{partition}} {{generation}}",
                        )
                    ],
                    "Records that are in both. Below 0 something is in neither, and answers are partial.",
                ),
                Lines(
                    "The hot tier is behind",
                    "short",
                    [
                        Query("max by (generation) (nearline_member_feed_behind_records)", "members {{generation}}"),
                        Query(
                            rate("nearline_hot_feed_position", "generation"), "reads posts, records/s {{generation}}"
                        ),
                    ],
                    "",
                ),
                Lines(
                    "Posts in the hot tier",
                    "short",
                    [Query("max by (process, generation) (nearline_hot_posts)", "{{process}} {{generation}}")],
                    "",
                ),
                Lines(
                    "Members",
                    "short",
                    [
                        Query(
                            "max by (process, generation) (nearline_held_members)", "{{process}} held {{generation}}"
                        ),
                        Query(rate("nearline_evicted_members_total", "process"), "{{process}} dropped a second"),
                    ],
                    "In memory.",
                ),
                Lines(
                    "Members who asked were in",
                    "reqps",
                    [Query(rate("nearline_member_lookups_total", "from"), "{{from}}")],
                    "",
                    stacked=True,
                ),
                Lines(
                    "Cold answers were",
                    "reqps",
                    [Query(rate("nearline_cold_answers_total", "from"), "{{from}}")],
                    "Kept from an earlier question, or asked for.",
                    stacked=True,
                ),
                Lines(
                    "Skipped records",
                    "cps",
                    [
                        Query(rate("nearline_hot_skipped_records_total", "generation"), "posts {{generation}}"),
                        Query(rate("nearline_member_skipped_records_total", "generation"), "members {{generation}}"),
                    ],
                    "That cannot be taken.",
                ),
                Lines(
                    "Memory by kind",
                    "bytes",
                    [
                        Query("max by (process) (nearline_held_members_bytes)", "{{process}} members"),
                        Query("max by (process) (nearline_kept_answers_bytes)", "{{process}} kept answers"),
                        Query(
                            'max by (process) (process_resident_memory_bytes{process=~"serve.*"})', "{{process}} all"
                        ),
                    ],
                    "",
                ),
                Lines(
                    "Time for measuring recall",
                    "percentunit",
                    [Query(rate("nearline_recall_seconds_total", "process"), "{{process}}")],
                    "Seconds in each second; serve.recall_budget bounds it.",
                ),
            ],
        ),
    ],
)
