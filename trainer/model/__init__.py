"""What learns: its start, layers with gradients, the loss."""
