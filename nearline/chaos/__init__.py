"""Breaks a running pipeline on purpose and checks it: events whose result is known, faults of every kind, a judge."""
