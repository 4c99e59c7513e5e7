"""The encode stage: contexts in, vectors out, exactly once."""
