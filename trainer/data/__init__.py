"""The data: the feed, what was known at a moment, posts that belong together, batches."""
