"""`nearline up`: puts processes together, starts them, watches them, ends them."""
