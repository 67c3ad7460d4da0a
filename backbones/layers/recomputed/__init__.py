"""Batch normalization, activation and shortcut as one operation that keeps the convolution's output only."""
