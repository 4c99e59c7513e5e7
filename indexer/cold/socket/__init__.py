"""The embedded tier over a Unix socket: the owner answers, other processes of the machine ask."""
