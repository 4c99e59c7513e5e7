"""The HTTP service: app, server, limits, TLS, OpenAPI."""
