"""From captions to images: the flow's differential equation, and what draws with it."""
