"""Data sets cut down and rewritten, once, before training."""
