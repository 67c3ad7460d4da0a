"""The weights that a run starts from: read from a file of any kind, and fitted to the network."""
