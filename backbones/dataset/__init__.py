"""The images of a data set: where they are, whether they are sound, and which of them training uses."""
