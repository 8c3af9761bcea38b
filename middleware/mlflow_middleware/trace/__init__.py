"""The record of a request, and its description for OpenTelemetry and MLflow; independent of MLflow."""
