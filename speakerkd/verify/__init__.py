"""A model in use: in go recordings and an exported folder, out come scores, decisions and profiles. No PyTorch."""
