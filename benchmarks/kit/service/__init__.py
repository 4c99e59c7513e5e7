"""What `benchmarks/service.py` measures, one file for each set-up."""
