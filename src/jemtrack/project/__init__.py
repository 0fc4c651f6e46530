"""A project's files: parameters, graph, code, unfinished trainings, revisions."""
