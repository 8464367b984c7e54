"""One loop, read top to bottom, and what it needs to be trusted: optimiser, checkpoint, journal, run directory."""
