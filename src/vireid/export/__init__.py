"""A trained network as files that other programs run, one for each modality, and back: such files as a model."""
