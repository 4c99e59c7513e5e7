"""The gRPC service: what its messages mean, and the server."""
