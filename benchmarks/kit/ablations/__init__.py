"""What `benchmarks.ablations` compares, on what, and how each arm is trained and measured."""
