"""Waves: a line of wav.scp goes in, with its segment and augmentation; a mono wave at one rate comes out."""
