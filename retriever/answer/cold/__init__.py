"""Answers of the cold tier: asked for, kept, and made ahead."""
