"""Changes of an image for training and evaluation: geometry and colours, from given random numbers."""
