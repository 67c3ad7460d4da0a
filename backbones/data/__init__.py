"""From images to batches: order, reading, decoding, augmentation and mixing."""
