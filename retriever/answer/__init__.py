"""Answers one request: the query, the search in both tiers, the merge."""
