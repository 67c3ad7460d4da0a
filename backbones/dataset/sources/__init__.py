"""Where images come from: each module turns one layout of a data set into an Index."""
