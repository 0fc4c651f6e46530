"""Listeners on a training's events."""
