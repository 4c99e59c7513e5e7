"""The context stage: input events in, contexts out, exactly once; its rows in RocksDB and their changelogs."""
