"""The board of the generations: which live, how far the one is that is being built, and how both answer."""

from typing import Final

from deploy.boards.board import Board, Lines, Query, Row, or_zero, quantile, rate

GENERATIONS: Final = Board(
    "generations",
    "generations",
    "Which model serves, how far the next one is, and how both answer.",
    [
        Row(
            "Which live?",
            [
                Lines(
                    "Generations",
                    "short",
                    [
                        Query(
                            "max by (generation, state, place) (nearline_generation_info)",
                            "{{generation}} {{state}} at {{place}}",
                        )
                    ],
                    "1 for each that lives.",
                ),
                Lines(
                    "Canary",
                    "percentunit",
                    [Query(or_zero("max by (generation) (nearline_generation_canary_share)"), "{{generation}}")],
                    "The share of the members whom it answers.",
                ),
                Lines(
                    "Places",
                    "short",
                    [Query("max by (place) (nearline_place_occupied)", "{{place}}")],
                    "1 while a generation lives there.",
                ),
                Lines(
                    "Autopilot",
                    "short",
                    [
                        Query("max(nearline_autopilot_on)", "on"),
                        Query(
                            or_zero("sum by (act, outcome) (increase(nearline_autopilot_acts_total[1h])) > 0"),
                            "{{act}} {{outcome}}",
                        ),
                    ],
                    "1 while it is on; its acts of the last hour.",
                ),
            ],
        ),
        Row(
            "How far is it?",
            [
                Lines(
                    "Records to encode",
                    "short",
                    [
                        Query(
                            'sum by (consumergroup) (kafka_consumergroup_lag{consumergroup=~"encode.*"})',
                            "{{consumergroup}}",
                        )
                    ],
                    "",
                ),
                Lines(
                    "Records to index",
                    "short",
                    [
                        Query(
                            'sum by (consumergroup) (kafka_consumergroup_lag{consumergroup=~"index.*"})',
                            "{{consumergroup}}",
                        )
                    ],
                    "",
                ),
                Lines(
                    "Oldest record",
                    "s",
                    [
                        Query(
                            "max by (stage, generation) (nearline_stage_oldest_record_seconds)",
                            "{{stage}} {{generation}}",
                        )
                    ],
                    "What is being built reads old contexts from their start.",
                ),
                Lines(
                    "Entities in the cold tier",
                    "short",
                    [Query("max by (kind, generation) (nearline_cold_entities)", "{{kind}} {{generation}}")],
                    "",
                ),
                Lines(
                    "Posts in the hot tier",
                    "short",
                    [Query("max by (generation) (nearline_hot_posts)", "{{generation}}")],
                    "Once a retriever has it open.",
                ),
            ],
        ),
        Row(
            "How do they answer?",
            [
                Lines(
                    "Answers",
                    "reqps",
                    [
                        Query(
                            rate("nearline_retrieve_answers_total", "generation, outcome"), "{{generation}} {{outcome}}"
                        )
                    ],
                    "",
                ),
                Lines(
                    "p99",
                    "s",
                    [Query(quantile(0.99, 'nearline_retrieve_seconds{step="total"}', ",generation"), "{{generation}}")],
                    "",
                ),
                Lines(
                    "Recall",
                    "percentunit",
                    [
                        Query(
                            "sum by (generation) (increase(nearline_recall_found_candidates_total[30m])) "
                            "/ sum by (generation) (increase(nearline_recall_expected_candidates_total[30m]))",
                            "{{generation}}",
                        )
                    ],
                    "",
                ),
                Lines(
                    "Canary posts",
                    "short",
                    [
                        Query(
                            "sum by (generation, outcome) (increase(nearline_canaries_total[15m]))",
                            "{{generation}} {{outcome}}",
                        )
                    ],
                    "Sent, looked for and deleted by the monitor, in 15 minutes.",
                ),
            ],
        ),
    ],
)
