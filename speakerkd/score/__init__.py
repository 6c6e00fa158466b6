"""Scores of trials and what they are worth: numpy only, no torch."""
