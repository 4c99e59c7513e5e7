"""The trending stage, on Faust: reads activity, writes lists of the posts that draw the most of it."""
