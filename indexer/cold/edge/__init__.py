"""The embedded Qdrant engine, in the process of its one owner."""
