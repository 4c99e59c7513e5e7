"""The alerts: from the objectives in `deploy/slo.toml` to Prometheus' rules."""
