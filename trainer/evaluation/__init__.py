"""How well packages find what members acted on."""
