"""The trending stage, on Faust: activity in, lists of the posts of the hour out."""
