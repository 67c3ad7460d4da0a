"""Images to batches: what is in the data set, in which order, decoded by whom, mixed how."""
