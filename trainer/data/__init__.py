"""What is learned from: the feed, posts that belong together, batches."""
