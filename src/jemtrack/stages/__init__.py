"""The nodes, which become stages in dvc.yaml."""
