"""A made-up feed: a world with everything a real feed has that the small world of `make demo` lacks.

Members scroll through sessions; what they are shown, at which position and how they act is simulated step by step, with
what happened before. The numbers follow these published shapes:

- Popularity is heavy-tailed, and depends on a post's quality and on its exposure: a post is shown more often because
  others acted on it. Drawing posts from recent actions is the copying model of Simon (1955, Biometrika 42) and so
  preferential attachment (Barabási & Albert 1999, Science 286); that quality then counts for something but not for all:
  Salganik, Dodds & Watts (2006, Science 311).
- Position bias: each further position is reached by a constant share of members (the cascade of Craswell et al. 2008,
  WSDM), and is looked at less by a power of its rank (Joachims, Swaminathan & Schnabel 2017, WSDM).
- Dwell is log-normal: Yin et al. (2013, KDD).
- Attention to a post decays with its age, within about a day: Wu & Huberman (2007, PNAS 104).
- Members' activity and authors' followers have heavy tails: Clauset, Shalizi & Newman (2009, SIAM Review 51), Kwak et
  al. (2010, WWW).
- Interests change: Koren (2009, KDD).

It is known what nobody knows of a real feed: the true chance that a member acts on a post that it looks at.
"""
