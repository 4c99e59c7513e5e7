"""Replaces the model by itself: what is announced is built, gated, tried on some members, and promoted."""
