"""What travels between the parts: events, contexts, embedding records, hops, topic names. Imports nothing of ours."""
