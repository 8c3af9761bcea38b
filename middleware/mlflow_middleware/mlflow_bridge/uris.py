"""The kinds of tracking URIs."""

from __future__ import annotations


def is_databricks(tracking_uri: str) -> bool:
    """Return whether a tracking URI is a Databricks workspace: ``databricks``, or ``databricks://`` and a profile."""
    return tracking_uri == "databricks" or tracking_uri.startswith("databricks://")
