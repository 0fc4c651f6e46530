"""What happens in a training, and how callbacks, recorders and trackers hear of it."""
