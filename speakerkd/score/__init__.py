"""Trials to figures: in go vectors and trials, out come scores, error rates and intervals. NumPy only, no PyTorch."""
