"""The training loop: a method and batches go in; a folder with weights and logs comes out, and comparisons of runs."""
