"""The hot tier: the newest posts in memory, in the slots of a matrix that is searched in place."""
