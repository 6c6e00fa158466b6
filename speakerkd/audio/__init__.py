"""Recordings to waves: in goes a line of wav.scp with its segment and augmentation, out comes a mono wave at one rate."""
