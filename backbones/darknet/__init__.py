"""Darknet's files, read and written: .cfg and .weights."""
