"""The HTTP service: routes, server, API key, request limits, TLS, metrics, OpenAPI."""
