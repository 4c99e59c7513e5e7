"""The cold tier: the embedded engine in its owner and over its socket, and a Qdrant server."""
