"""The registry of packages, and the quality gate before it."""
