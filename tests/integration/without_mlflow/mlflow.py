"""Stands in MLflow's place where a project's processes are to have none, as `make repro` makes it.

ZnTrack's command imports MLflow wherever that is installed: longer than most stages here train.
"""

raise ImportError("no MLflow here")
