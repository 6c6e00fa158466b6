"""Batches of a data directory: features, labels and attached vectors go in, the crops of each training step come out."""
