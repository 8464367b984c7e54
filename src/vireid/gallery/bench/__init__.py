"""`vireid bench`: how fast a gallery is, as ratios to named baselines of the same run."""
