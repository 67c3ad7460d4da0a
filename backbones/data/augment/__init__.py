"""What is done to an image: geometry and colours from given random numbers, for training and evaluation."""
