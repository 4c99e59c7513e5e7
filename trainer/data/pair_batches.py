"""Draws batches of pairs: what looks for a post, and the post that it shall find, among all posts of the batch.

In the main task a member looks, as it was just before an action; in an auxiliary task the other posts of a group do.
All batches are drawn, and their prompts rendered, from the seed before training begins, so a resumed training gets the
same ones. Owns which pairs meet in a batch. Knows no model.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from encoders.prompt.prompts import has_profile
from trainer.data.batches import BatchDrawer, TrainingRows, mixed, tokens_of_weight_one
from trainer.data.dataset import TrainingData
from trainer.data.examples import Example, Examples
from trainer.data.rendering import TrainingPrompts
from trainer.errors import BadEvents
from trainer.settings import TrainSettings


class Column(NamedTuple):
    """A post that can be found in a batch."""

    post: int
    """The post's number, or that of a part."""
    prompt: int


class Pair(NamedTuple):
    owner: int
    parts: tuple[tuple[int, float], ...]
    """The prompts that look for the post, and their weights: what looks is the weighted mean of their vectors."""
    target: Column
    negatives: tuple[Column, ...]
    """Posts that are in the batch only because the member was shown them and did not act on them."""

    @property
    def prompts(self) -> set[int]:
        columns = (self.target, *self.negatives)
        return {prompt for prompt, _ in self.parts} | {column.prompt for column in columns}


class PairBatches(NamedTuple):
    pairs: list[Pair]
    batches: list[list[int]]
    """Indices of pairs."""
    num_tokens: int
    num_posts: int
    """How many posts are encoded; a post that is in a batch twice in the same words is encoded once."""


def draw_pairs(
    data: TrainingData, prompts: TrainingPrompts, settings: TrainSettings, tokens: int, seed: int
) -> PairBatches:
    """At least one batch of each task. Raises BadEvents where no example can be rendered."""
    assert data.examples is not None, "the plan asks for examples"
    of_weight_one = tokens_of_weight_one(tokens, settings)
    main_task = _MainTask(data.examples, prompts, settings, seed)
    tasks = [main_task.batches(settings.main * of_weight_one)] if settings.main else []
    tasks += _AuxiliaryTasks(data, prompts, settings).batches(of_weight_one, seed) if settings.tasks else []
    batches = mixed(tasks)
    pairs = [pair for batch in batches for pair in batch]
    ends = np.cumsum([0, *map(len, batches)]).tolist()
    indices = [list(range(start, end)) for start, end in pairwise(ends)]
    num_tokens = sum(_num_tokens(prompts, set[int]().union(*(pair.prompts for pair in batch))) for batch in batches)
    num_posts = sum(len({column for pair in batch for column in (pair.target, *pair.negatives)}) for batch in batches)
    return PairBatches(pairs, indices, num_tokens, num_posts)


class _MainTask:
    """Members look for the posts that they act on. A batch is of one era, and has each member once, however much it
    did."""

    def __init__(self, examples: Examples, prompts: TrainingPrompts, settings: TrainSettings, seed: int) -> None:
        self._examples = examples
        self._prompts = prompts
        self._settings = settings
        self._rng = np.random.default_rng(seed)

    def batches(self, tokens: float) -> list[list[Pair]]:
        batches: list[list[Pair]] = []
        used = 0
        while not batches or used + self._settings.batch_tokens <= tokens:
            pairs, num_tokens = self._batch()
            batches.append(pairs)
            used += num_tokens
        return batches

    def _batch(self) -> tuple[list[Pair], int]:
        batch: list[Pair] = []
        seen: set[int] = set()
        num_tokens = 0
        for pair in self._pairs_of_an_era():
            new_tokens = _num_tokens(self._prompts, pair.prompts - seen)
            if batch and num_tokens + new_tokens > self._settings.batch_tokens:
                break
            batch.append(pair)
            seen |= pair.prompts
            num_tokens += new_tokens
        if not batch:
            raise BadEvents(
                "no member that acts has a profile or a history before its action; give events of a longer time"
            )
        return batch, num_tokens

    def _pairs_of_an_era(self) -> Iterator[Pair]:
        num, era = len(self._examples.examples), self._settings.era
        middle = int(num * self._rng.random() ** (1 / self._settings.recency))
        start = max(0, min(middle - era // 2, num - era))
        owners: set[int] = set()
        for index in start + self._rng.permutation(min(era, num)):
            example = self._examples.examples[index]
            if example.owner not in owners and (pair := self._pair(example)) is not None:
                owners.add(example.owner)
                yield pair

    def _pair(self, example: Example) -> Pair | None:
        """None where the member or the post would have no vector."""
        context = self._examples.member_context(example)
        if has_profile(context, self._prompts.member_template) and self._rng.random() < self._settings.profile_only:
            context = replace(context, history=[])
        parts, prompt = self._prompts.member(context), self._prompts.post(example.context)
        if not parts or prompt is None:
            return None
        return Pair(example.owner, tuple(parts), Column(example.post, prompt), tuple(self._negatives(example)))

    def _negatives(self, example: Example) -> list[Column]:
        columns: list[Column] = []
        for index in self._rng.permutation(len(example.shown)):
            number, context = example.shown[index]
            if len(columns) < self._settings.negatives and (prompt := self._prompts.post(context)) is not None:
                columns.append(Column(number, prompt))
        return columns


class _AuxiliaryTasks:
    """Each post of a group, or part of a post, is to be found by the mean of the group's others."""

    def __init__(self, data: TrainingData, prompts: TrainingPrompts, settings: TrainSettings) -> None:
        assert data.examples is not None
        contexts = data.examples.post_contexts
        # Their rows hold parts alone.
        posts: list[int | None] = [None] * len(data.texts)
        self._prompt_of = [*posts, *(prompts.part(contexts[number], part) for number, part in data.parts)]
        lengths = [0 if prompt is None else prompts.table.length(prompt) for prompt in self._prompt_of]
        self._rows = TrainingRows(data)
        self._drawer = BatchDrawer(data, self._rows, np.array(lengths), settings)

    def batches(self, of_weight_one: float, seed: int) -> list[list[list[Pair]]]:
        tasks = self._drawer.auxiliary_batches(of_weight_one, seed)
        return [[pairs for batch in task if (pairs := self._pairs(batch))] for task in tasks]

    def _pairs(self, rows: Sequence[int]) -> list[Pair]:
        def owner_of(row: int) -> int:
            return int(self._rows.owner[row])

        pairs = []
        for owner, group in groupby(sorted(rows, key=owner_of), owner_of):
            numbers = dict.fromkeys(int(self._rows.post[row]) for row in group)
            columns = [Column(number, prompt) for number in numbers if (prompt := self._prompt_of[number]) is not None]
            for target in columns:
                others = tuple((column.prompt, 1.0) for column in columns if column != target)
                if others:
                    pairs.append(Pair(owner, others, target, ()))
        return pairs


def _num_tokens(prompts: TrainingPrompts, numbers: set[int]) -> int:
    return sum(map(prompts.table.length, numbers))
