"""The adversary: a feed whose end is known, faults of every kind, and a judge."""
