"""From a context to token ids."""
