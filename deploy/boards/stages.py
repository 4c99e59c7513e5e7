"""One board for each stage: is it behind, what does it do, what does it need?"""

from typing import Final

from deploy.boards.board import Board, Lines, Query, Row, or_zero, quantile, rate


def _behind(stage: str, group: str, process: str, by: str = "") -> Row:
    """`group` and `process` are the beginnings of their names. `by`: ", generation" for a stage that each generation
    has for itself."""
    of, groups = f'{{stage="{stage}"}}', f'{{consumergroup=~"{group}.*"}}'
    legend = " ".join(f"{{{{{label}}}}}" for label in ("stage", *by.split(", ")[1:]))
    return Row(
        "Is it behind?",
        [
            Lines(
                "Oldest record",
                "s",
                [Query(f"max by (stage{by}) (nearline_stage_oldest_record_seconds{of})", legend)],
                "That it has still to do.",
            ),
            Lines(
                "Records that wait",
                "short",
                [Query(f"sum by (topic, partition) (kafka_consumergroup_lag{groups})", "{{topic}} {{partition}}")],
                "One partition that grows alone has a process that hangs, or a record that does.",
            ),
            Lines(
                "Its processes",
                "short",
                [
                    Query(f'min by (process) (nearline_process_up{{process=~"{process}.*"}})', "{{process}} runs"),
                    Query(
                        f'sum by (process) (increase(nearline_process_restarts_total{{process=~"{process}.*"}}[15m]))',
                        "{{process}} restarts in 15 minutes",
                    ),
                ],
                "1 while it runs.",
            ),
        ],
    )


def _needs(process: str) -> Row:
    of = f'{{process=~"{process}.*"}}'
    return Row(
        "What does it need?",
        [
            Lines(
                "Memory", "bytes", [Query(f"sum by (process) (process_resident_memory_bytes{of})", "{{process}}")], ""
            ),
            Lines(
                "Processor",
                "short",
                [Query(rate(f"process_cpu_seconds_total{of}", "process"), "{{process}}")],
                "In cores.",
            ),
            Lines("Open files", "short", [Query(f"sum by (process) (process_open_fds{of})", "{{process}}")], ""),
        ],
    )


def _transactions(stage: str) -> Lines:
    of = f'nearline_transaction_seconds{{stage="{stage}"}}'
    return Lines(
        "Transactions",
        "s",
        [Query(quantile(0.5, of), "p50"), Query(quantile(0.99, of), "p99")],
        "From the beginning until it is committed.",
    )


CONTEXTS: Final = Board(
    "contexts",
    "contexts",
    "The context stage: from events to what there is to know of a post or member.",
    [
        _behind("contexts", "contexts", "contexts"),
        Row(
            "What does it do?",
            [
                Lines(
                    "Records read", "cps", [Query(rate("nearline_contexts_records_total", "topic"), "{{topic}}")], ""
                ),
                Lines(
                    "Contexts published",
                    "cps",
                    [Query(rate("nearline_contexts_published_total", "kind, when"), "{{kind}} {{when}}")],
                    "At once, or put off to the end of their window.",
                ),
                _transactions("contexts"),
                Lines(
                    "Not applied",
                    "cps",
                    [
                        Query(or_zero(rate("nearline_contexts_not_applied_total", "cause")), "{{cause}}"),
                        Query(
                            or_zero(rate("nearline_contexts_misplaced_records_total", "topic")), "misplaced {{topic}}"
                        ),
                    ],
                    "Records that changed nothing, or not all that they say, and those in a wrong partition.",
                ),
            ],
        ),
        _needs("contexts"),
    ],
)

TRENDING: Final = Board(
    "trending",
    "trending",
    "The trending stage: what is popular now.",
    [
        _behind("trending", "trending", "trending"),
        Row(
            "What does it do?",
            [
                Lines(
                    "Age of the newest list",
                    "s",
                    [Query("max by (generation) (nearline_trending_age_seconds)", "{{generation}}")],
                    "As retrievers see it. Lists are written while there is activity.",
                ),
                Lines(
                    "Lists",
                    "cps",
                    [Query(rate('kafka_topic_partition_current_offset{topic="trending"}'), "lists")],
                    "",
                ),
                Lines(
                    "Records",
                    "cps",
                    [Query(rate("nearline_trending_records_total", "outcome"), "{{outcome}}")],
                    "Of activity. Impressions are weightless.",
                ),
                Lines(
                    "Ranking a list",
                    "s",
                    [
                        Query(quantile(0.5, "nearline_trending_ranking_seconds"), "p50"),
                        Query(quantile(0.99, "nearline_trending_ranking_seconds"), "p99"),
                    ],
                    "Nothing is read meanwhile.",
                ),
            ],
        ),
        _needs("trending"),
    ],
)

ENCODE: Final = Board(
    "encode",
    "encode",
    "The encode stage: from contexts to vectors.",
    [
        _behind("encode", "encode", "encode", ", generation"),
        Row(
            "What does it do?",
            [
                Lines(
                    "Contexts",
                    "cps",
                    [Query(rate("nearline_encode_contexts_total", "kind, outcome"), "{{kind}} {{outcome}}")],
                    "Encoded, and those that cannot be.",
                ),
                Lines("Tokens", "cps", [Query(rate("nearline_encode_tokens_total", "process"), "{{process}}")], ""),
                Lines(
                    "Fill of its batches",
                    "percentunit",
                    [
                        Query(
                            f"{rate('nearline_encode_tokens_total', 'process')} / "
                            f"{rate('nearline_encode_batch_budget_tokens_total', 'process')}",
                            "{{process}}",
                        )
                    ],
                    "Of the tokens that they could have held. Full while much waits, nearly empty while little does.",
                ),
                Lines(
                    "Where its time goes",
                    "percentunit",
                    [
                        Query(rate("nearline_encode_device_seconds_total", "process"), "{{process}} device"),
                        Query(
                            rate("nearline_encode_tokenise_seconds_total", "process, kind"),
                            "{{process}} prompts {{kind}}",
                        ),
                    ],
                    "Seconds in each second.",
                ),
                Lines(
                    "Waiting for the device",
                    "s",
                    [Query(quantile(0.99, "nearline_encode_queue_wait_seconds", ",kind"), "p99 {{kind}}")],
                    "From the time a turn is submitted to the time it begins.",
                ),
                _transactions("encode"),
                Lines(
                    "Token budget",
                    "short",
                    [
                        Query("min by (process) (nearline_encode_budget_tokens)", "{{process}}"),
                        Query("sum(increase(nearline_encode_out_of_memory_total[1h]))", "out of memory in an hour"),
                    ],
                    "Halved when memory runs out, and grows back.",
                ),
                Lines(
                    "Vectors that were there already",
                    "cps",
                    [Query(or_zero(rate("nearline_encode_cache_total", "cache, result")), "{{cache}} {{result}}")],
                    "Looked for before encoding.",
                ),
                Lines(
                    "Prompts in a batch",
                    "short",
                    [
                        Query(
                            f"{rate('nearline_encode_prompts_total', 'process')} / "
                            f"{rate('nearline_encode_batches_total', 'process')}",
                            "{{process}}",
                        )
                    ],
                    "On average.",
                ),
            ],
        ),
        _needs("encode"),
    ],
)

INDEX: Final = Board(
    "index",
    "index",
    "The index stage and the cold tier: from vectors to what is found for good.",
    [
        _behind("index", "index", "cold", ", generation"),
        Row(
            "What does it do?",
            [
                Lines(
                    "Fresh in the cold tier",
                    "s",
                    [
                        Query(
                            quantile(0.5, 'nearline_freshness_seconds{tier="cold"}', ",generation"),
                            "p50 {{generation}}",
                        ),
                        Query(
                            quantile(0.99, 'nearline_freshness_seconds{tier="cold"}', ",generation"),
                            "p99 {{generation}}",
                        ),
                    ],
                    "From an event to its effect there. A generation that is being built reads old contexts.",
                ),
                Lines(
                    "Records",
                    "cps",
                    [Query(rate("nearline_index_records_total", "outcome, generation"), "{{outcome}} {{generation}}")],
                    "Also of a generation that is being built.",
                ),
                Lines(
                    "Entities",
                    "short",
                    [Query("max by (kind, generation) (nearline_cold_entities)", "{{kind}} {{generation}}")],
                    "Live ones, of the embedded tier.",
                ),
                Lines(
                    "Oldest deletion that is still in the files",
                    "s",
                    [Query("max by (process) (nearline_cold_oldest_erasure_seconds)", "{{process}}")],
                    "Of the embedded tier. Must stay below kafka.erase_within_s.",
                ),
            ],
        ),
        _needs("cold"),
    ],
)

STAGES: Final = (CONTEXTS, TRENDING, ENCODE, INDEX)
