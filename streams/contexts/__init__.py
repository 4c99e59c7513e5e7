"""The context stage: turns input events into contexts, exactly once. Its rows are in RocksDB and their changelogs."""
