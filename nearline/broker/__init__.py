"""The embedded broker: Apache Kafka on loopback, its jars, its settings, its start."""
