"""Records, batches, protocols and trials: the types that all other rooms share, and how pictures are loaded."""
