"""The gate: what is measured of a generation before it may answer. One file for each check."""
