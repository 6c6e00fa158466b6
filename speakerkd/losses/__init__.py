"""Tensors to losses: in go logits or embeddings, out comes a number to minimise."""
