"""Waves to features: in goes a wave, out comes a matrix of frames by filters, or the speech decision of each frame."""
