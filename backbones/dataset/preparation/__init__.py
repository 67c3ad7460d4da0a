"""Data sets looked at, cut down and written anew, once, before training."""
