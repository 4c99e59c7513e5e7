"""Answers from several generations: which of them are open, which one answers a question, and when one is closed."""
