"""Checks before a long run: data, shards, memory, learning, resuming, time and cost."""
