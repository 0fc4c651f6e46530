"""The files of a project: parameters, graph, code, unfinished trainings, revisions."""
