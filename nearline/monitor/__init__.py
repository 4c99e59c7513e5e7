"""How far every stage is behind, and which one stands still: looks, judges, and says it."""
