"""What the engine shares with data, networks, trackers and evaluation, which do without it."""
