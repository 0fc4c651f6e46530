"""Run the stages of a graph side by side, on this machine or on a cluster.

A worker is a clone of the project at a snapshot. It shares DVC's cache, and so the run cache, out
of which the project itself then restores every result: there is nothing to merge.
"""
