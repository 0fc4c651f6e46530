"""Callbacks: they see every event of a training and have a say in it; a file for each."""
