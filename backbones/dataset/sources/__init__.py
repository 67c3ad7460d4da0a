"""Sources of images: each module turns one layout of a data set into an Index."""
