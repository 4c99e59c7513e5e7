"""`nearline top`: what an instance does, live in a terminal."""
