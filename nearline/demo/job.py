"""What the demo shows, step by step, on a running pipeline.

Each step prints its result, and raises DemoFailed when the result is not what it should be.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from nearline.ask.connections import Connections
from nearline.demo.events import Facts, read_texts
from nearline.demo.quality import PRECISION_AT, precision
from nearline.demo.world import Truth
from nearline.errors import NearlineError
from nearline.pipeline import COMMAND_S, Pipeline
from nearline.settings.loading import instance_settings
from retriever.client import RetrieverClient
from retriever.errors import RetrieverUnavailable
from schemas import topics
from schemas.api import RetrieveRequest, RetrieveResponse, StatusResponse
from streams.operate.event_files import InputEvent
from streams.operate.ingest import EventSender
from streams.settings import KafkaSettings

_LOOK_EVERY_S: Final = 3.0
_LOOK_SHARE: Final = 0.05
"""The next look comes after this share of the time so far, so that a long run does not fill many pages."""
_SLOWEST: Final = 50.0
"""Events/s. A pipeline that is slower than this on a laptop must be standing still."""
_FRESH_TIMEOUT_S: Final = 60.0
_FRESH_TEXT: Final = "A lighthouse keeper teaches her parrot to play the accordion, badly and every night."
_BEST: Final = 10
_ACTED: Final = 5
_TEXT_CHARS: Final = 88
_SAMPLE: Final = 100


class DemoFailed(NearlineError):
    """A step did not give the result that it should."""


class Input(NamedTuple):
    """The events to send. `truth` is None for a file of events that we did not make."""

    file: Path
    facts: Facts
    truth: Truth | None


class Job:
    """The steps on one running pipeline."""

    def __init__(self, pipeline: Pipeline, input_: Input, print_line: Callable[[str], None] = click.echo) -> None:
        self._pipeline = pipeline
        self._input = input_
        self._print = print_line

    def run(self) -> None:
        with self._pipeline.client() as client:
            self._throughput()
            self._freshness(client)
            self._candidates(client)
            self._deletion(client)
            self._lag(client)

    def _throughput(self) -> None:
        """1. Sends all events, and prints now and then how far the pipeline is."""
        self._print(f"\nSending {self._input.facts.num_events:,} events:")
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(self._send)
            for status in self._statuses(sent):
                self._print(f"  {time.monotonic() - began:4.0f} s  {_progress(status)}")
            sent.result()
        took_s = time.monotonic() - began
        rate = self._input.facts.num_events / took_s
        self._print(f"\n1. All of it is searchable after {took_s:.1f} s: {rate:,.0f} events/s through the pipeline.")

    def _send(self) -> None:
        limit_s = COMMAND_S + self._input.facts.num_events / _SLOWEST
        self._pipeline.run("ingest", "--shift-to-now", self._input.file, timeout_s=limit_s)
        self._pipeline.wait(limit_s)

    def _statuses(self, sent: "Future[None]") -> Iterator[StatusResponse]:
        """The pipeline's status now and then, until everything is searchable. It may be too busy to answer."""
        with self._pipeline.client() as client:
            began = time.monotonic()
            due = began + _LOOK_EVERY_S
            while not sent.done():
                time.sleep(0.1)
                if time.monotonic() >= due:
                    try:
                        yield client.status()
                    except RetrieverUnavailable:
                        self._print("          (too busy to answer)")
                    now = time.monotonic()
                    due = now + max(_LOOK_EVERY_S, _LOOK_SHARE * (now - began))

    def _freshness(self, client: RetrieverClient) -> None:
        """2. Sends one post and waits until it is found."""
        event = new_post("demo-fresh", _FRESH_TEXT)
        request = RetrieveRequest(text=_FRESH_TEXT, k=PRECISION_AT)
        kafka = kafka_of(self._pipeline)
        began = time.monotonic()
        with EventSender(kafka, options={"linger.ms": 0}) as sender:
            send_post(sender, event)
        while event["post_id"] not in (answer := client.retrieve(request)).post_ids:
            if time.monotonic() - began > _FRESH_TIMEOUT_S:
                raise DemoFailed(f"a fresh post was not retrievable after {_FRESH_TIMEOUT_S:.0f} s")
            time.sleep(0.02)
        took_s = time.monotonic() - began
        rank = answer.post_ids.index(event["post_id"])
        self._print(
            f"\n2. A fresh post is retrievable {took_s:.2f} s after it was sent "
            f"(rank {rank + 1} for its own words, from the {answer.tiers[rank]} tier)."
        )

    def _candidates(self, client: RetrieverClient) -> None:
        """3. Shows the candidates of two members and, where the truth is known, how good the answers are."""
        members = self._input.facts.busiest_members(2)
        if len(members) < 2:
            raise DemoFailed("the file holds fewer than two members with positive activity; there is nothing to show")
        self._print("\n3. Two members, what they acted on and the best of their candidates.")
        for member_id in members:
            answer = client.retrieve(RetrieveRequest(member_id=member_id, hide_acted=True))
            self._show_member(member_id, answer)
        if self._input.truth is not None:
            self._show_precision(client, self._input.truth)

    def _show_member(self, member_id: str, answer: RetrieveResponse) -> None:
        history = self._pipeline.ask("get", "member", member_id)["context"]["history"]
        best = list(zip(answer.post_ids, answer.scores, answer.tiers, strict=True))[:_BEST]
        texts = read_texts(self._input.file, {post_id for post_id, _, _ in best})
        truth = self._input.truth
        cares = f", who cares about {' and '.join(truth.interests[member_id])}" if truth is not None else ""
        self._print(f"\n   {member_id}{cares}. Acted on last:")
        for entry in reversed(history[-_ACTED:]):
            self._print(f"     {entry['action']:>14}  {_start(entry['text'])}")
        counts = ", ".join(f"{number:,} {tier}" for tier, number in answer.counts.items())
        self._print(f"   The best {len(best)} of {len(answer.post_ids):,} candidates ({counts}):")
        for post_id, score, tier in best:
            self._print(f"     {score:.3f}  {tier:>7}  {_start(texts.get(post_id, ''))}")

    def _show_precision(self, client: RetrieverClient, truth: Truth) -> None:
        share, chance = precision(client, truth, _SAMPLE)
        self._print(
            f"\n   Of the best {PRECISION_AT} of {_SAMPLE} members, {share:.0%} are about what they care about now; "
            f"chance would be {chance:.0%}."
        )

    def _deletion(self, client: RetrieverClient) -> None:
        """4. Deletes a post that is in both tiers."""
        # The hot tier holds what changed last, which need not be what was created last.
        hot = {line["post_id"] for line in self._pipeline.lines("dump", "posts", "--tier", "hot")}
        post_id = self._input.facts.newest_post(hot)
        if post_id is None:
            raise DemoFailed("the hot tier holds no post of the file; there is nothing to delete")
        before = client.post(post_id)
        if before.cold.deleted is not False or before.hot.deleted is not False:
            raise DemoFailed(f"the post {post_id} is not in both tiers: {before}")
        self._pipeline.ingest([{"type": "post.deleted", "post_id": post_id, "at": _now()}])
        self._pipeline.wait()
        live = {
            tier: {line["post_id"] for line in self._pipeline.lines("dump", "posts", "--tier", tier)}
            for tier in ("cold", "hot")
        }
        text = read_texts(self._input.file, {post_id})[post_id]
        candidates = client.retrieve(RetrieveRequest(text=text[:1_000] or "?")).post_ids
        if post_id in live["cold"] or post_id in live["hot"] or post_id in candidates:
            raise DemoFailed(f"the deleted post {post_id} is still found: {client.post(post_id)}")
        self._print(
            f"\n4. {post_id} was in both tiers and is deleted: it is gone from the {len(live['cold']):,} posts of the "
            f"cold tier and the {len(live['hot']):,} of the hot tier, and no candidate for its own words."
        )

    def _lag(self, client: RetrieverClient) -> None:
        """5. Shows the lag of every stage."""
        status = client.status()
        self._print("\n5. Lag of every stage, in records:")
        for stage in status.stages:
            self._print(f"     {stage.stage:<9}  {stage.topic:<36}  {'?' if stage.lag is None else stage.lag}")
        fresh, letters = status.freshness_s, status.dead_letters
        p50, p99 = ("?" if seconds is None else f"{seconds:.2f} s" for seconds in (fresh.p50, fresh.p99))
        self._print(f"   Dead letters: {letters}. Freshness of the last minutes: p50 {p50}, p99 {p99}.")


def _progress(status: StatusResponse) -> str:
    behind: dict[str, int] = {}
    for stage in status.stages:
        behind[stage.stage] = behind.get(stage.stage, 0) + (stage.lag or 0)
    left = ", ".join(f"{stage} {lag:,}" for stage, lag in behind.items() if lag)
    tiers = status.tiers
    counts = f"cold {tiers.cold.posts} posts, {tiers.cold.members} members; hot {tiers.hot.posts} posts"
    return f"{counts}; behind: {left or 'nothing'}"


def kafka_of(pipeline: Pipeline) -> KafkaSettings:
    return Connections(instance_settings(None, pipeline.data_dir), lambda: pipeline.instance).kafka


def send_post(sender: EventSender, event: Mapping[str, Any]) -> None:
    """Raises StreamsError."""
    sender.send([InputEvent(topics.POSTS, event["post_id"].encode(), json.dumps(event).encode())])


def new_post(post_id: str, text: str) -> dict[str, Any]:
    """The event by which a post is created now."""
    return {
        "type": "post.created",
        "post_id": post_id,
        "author_id": "demo-author",
        "text": text,
        "language": "en",
        "created_at": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _start(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _TEXT_CHARS else flat[: _TEXT_CHARS - 1] + "…"
