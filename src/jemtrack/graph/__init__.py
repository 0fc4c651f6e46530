"""Writing and reading the graph's files; no part of what a stage runs."""
