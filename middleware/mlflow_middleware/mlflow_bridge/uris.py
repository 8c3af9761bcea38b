"""Which kind of server a tracking URI names."""

from __future__ import annotations


def is_databricks(tracking_uri: str) -> bool:
    """Whether a tracking URI names a Databricks workspace: ``databricks``, or a profile after ``databricks://``."""
    return tracking_uri == "databricks" or tracking_uri.startswith("databricks://")
