"""From contexts to vectors: model packages, prompts, packing, and the encoder that puts them together."""
