"""A data directory to batches: in go features, labels and attached vectors, out come the crops of each training step."""
