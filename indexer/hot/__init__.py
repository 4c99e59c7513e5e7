"""The hot tier: slots of a matrix, searched in place."""
