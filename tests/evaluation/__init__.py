"""What needs full MLflow: the tox environment `evaluation`."""
