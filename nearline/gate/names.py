"""What the figures of the gate are called, in the log of the generations and in tables. Loads nothing."""

from typing import Final

IN_LOG: Final = "vectors in the log"
IN_COLD: Final = "vectors in the cold tier"
GOLDENS: Final = "golden texts"
RECALL_CUTOFFS: Final = (100, 2000)
RECALL: Final = tuple(f"serving better at recall@{k}" for k in RECALL_CUTOFFS)
OVERLAP: Final = "overlap of the answers"
TIER_RECALL: Final = "recall of the cold tier"
ANSWER_RECALL: Final = "recall of both tiers"
SEARCH_P99: Final = "search p99 / the serving one's"
AGE: Final = "age of the oldest record, in seconds"
