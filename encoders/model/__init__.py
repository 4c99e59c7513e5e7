"""The LLaMA of a package on a device: prompts in, vectors out."""
