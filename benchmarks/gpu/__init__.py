"""The encoder, the hot tier, the trainer and the encode stage on a GPU; `README.md` says what it needs."""
