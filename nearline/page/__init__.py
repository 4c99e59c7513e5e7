"""The operators' page: what the monitor and the processes say, put together for people, and what they do about it."""
