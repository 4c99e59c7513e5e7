"""From contexts to vectors: model packages, prompts, the packed model, and the encoder that joins them."""
