"""Losses: logits or embeddings go in, a number to minimise comes out."""
