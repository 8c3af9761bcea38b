"""What of a request may be kept, and what is replaced before anything else sees it."""

from mlflow_middleware.capture.redaction import MAX_ATTRIBUTE, REDACTED, Redactor

__all__ = ["MAX_ATTRIBUTE", "REDACTED", "Redactor"]
