"""Joint energy models: networks, objectives, sampling."""
