"""Losses: margin softmax (margin.py) and what distillation compares (distill.py)."""
