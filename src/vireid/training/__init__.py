"""The training loop, and what it needs: settings, optimiser, checkpoints, log, run directory, several processes."""
