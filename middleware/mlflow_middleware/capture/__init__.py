"""Capture of bodies, and redaction before anything is stored."""

from mlflow_middleware.capture.redaction import MAX_ATTRIBUTE, REDACTED, Redactor

__all__ = ["MAX_ATTRIBUTE", "REDACTED", "Redactor"]
