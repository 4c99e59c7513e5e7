"""Keeps the hot tier and the trending lists up to date from the topics."""
