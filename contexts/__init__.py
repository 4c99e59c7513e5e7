"""What events do to post and member rows, and how rows are stored as cells: pure functions without Kafka or a model."""
