"""What a model has done since the start, for metrics."""

from dataclasses import dataclass


@dataclass
class ModelStats:
    """Counters. No prompt is padded; only the whole batch, to a round number of tokens."""

    prompts: int = 0
    tokens: int = 0
    batches: int = 0
    budget_tokens: int = 0
    """How many tokens the batches could have held. `tokens / budget_tokens` is how full they were."""
    padding_tokens: int = 0
    """At the ends of batches, where a round number of tokens is computed faster; see `matrix_rows`."""
    device_s: float = 0.0
    """How long the device worked. On a CPU, the time of all threads divided by their number."""
    halvings: int = 0
    """How often the budget was halved because memory ran out."""

    def add_batch(self, num_prompts: int, num_tokens: int, budget: int, num_rows: int) -> None:
        """`num_rows`: of the batch's matrices."""
        self.prompts += num_prompts
        self.tokens += num_tokens
        self.batches += 1
        self.budget_tokens += max(budget, num_tokens)
        self.padding_tokens += num_rows - num_tokens
