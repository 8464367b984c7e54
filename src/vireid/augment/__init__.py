"""Batch in, batch out, with the randomness handed in."""
