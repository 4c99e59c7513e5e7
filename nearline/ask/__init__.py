"""From a command to a running instance: its parts, how it is, what a machine has."""
