"""A model in use: recordings and an exported folder go in, scores, decisions and profiles come out. No PyTorch."""
