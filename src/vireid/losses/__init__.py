"""Pure functions on rows (features or logits, identity, modality)."""
