"""Training loops of one's own, over the engine's lifecycle; and their files."""
