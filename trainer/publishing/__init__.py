"""The registry of packages, and the gate before it."""
