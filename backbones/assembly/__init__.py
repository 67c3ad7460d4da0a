"""Models, data and training put together: recipes to runs, checkpoints to networks."""
