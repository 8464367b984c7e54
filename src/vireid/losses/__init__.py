"""Losses: pure functions of features or logits, identities and modalities. They keep no state."""
