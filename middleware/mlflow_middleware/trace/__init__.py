"""The record of a request and its description in OpenTelemetry's and MLflow's terms; needs no MLflow."""
