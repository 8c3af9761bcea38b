"""Tests that need full MLflow: the tox environment `evaluation`."""
