"""How well packages find the posts that members acted on."""
