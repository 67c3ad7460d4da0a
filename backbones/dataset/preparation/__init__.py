"""Data sets cut down and written anew, once, before training."""
