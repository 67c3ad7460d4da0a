"""The evaluation of a checkpoint."""
