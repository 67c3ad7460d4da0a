"""Check of every image of a data set, once, before training."""
