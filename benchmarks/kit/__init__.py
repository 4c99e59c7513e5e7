"""What several benchmarks share: the table, load, packages, vectors, processes. Nothing here is a benchmark."""
