"""One file a command: `dead_letters.py` holds the click command `dead_letters`. Files with a `_` are no commands.

Importing one of these must stay cheap: torch, FAISS and transformers are imported by the functions that need them.
"""
