"""What a generation has on this machine and beside the log: its package, its folders, how it is built and retired."""
