"""What HTTP and gRPC share: from a checked request to an answer in time. Knows neither of the two."""
