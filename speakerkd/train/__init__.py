"""The training loop: in go a method and batches, out come a run's folder with weights and logs, and comparisons of runs."""
