"""One file for each command: `dead_letters.py` holds `nearline dead-letters`. Files that begin with `_` are shared.

Importing these files must stay cheap: torch, FAISS and transformers are imported inside the functions that need them.
"""
