"""The model that learns: its starting point, layers with gradients, the loss."""
