"""From features to a report: distance, ranking, metrics, protocols at work."""
