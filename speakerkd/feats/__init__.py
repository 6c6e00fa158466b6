"""Features: a wave goes in; a matrix of frames by filters comes out, or the speech decision of each frame."""
