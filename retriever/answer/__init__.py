"""One answer: the query, both tiers, the merge."""
