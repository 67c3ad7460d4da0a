"""The images of a data set: their places, their condition, and the choice of those for training and validation."""
