"""The parts of `benchmarks/reindex.py`: a real instance whose model is replaced."""
