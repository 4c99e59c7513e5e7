"""Kafka, as all stages share it: clients, topics, offsets, reading, sending, the transactional loop. Knows no stage."""
