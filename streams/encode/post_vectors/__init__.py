"""Writes `post-vectors`: the vectors of posts' texts for other teams, by the generation that serves."""
