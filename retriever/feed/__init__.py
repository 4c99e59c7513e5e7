"""The hot feed: what the topics say into the hot tier and the trending lists."""
