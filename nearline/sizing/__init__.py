"""How much of everything a load needs, by formulas from measured figures."""
