"""Optimization, evaluation, checkpoints and tracking: never imports models or data."""
