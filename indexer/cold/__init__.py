"""The cold tier: the embedded engine in the process of its owner and over its socket, and a Qdrant server."""
