"""All settings, and the data folder with the running instance in it."""
