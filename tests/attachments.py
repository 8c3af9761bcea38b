"""Files that were stored beside a trace."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.entities import Trace


def attachments(trace: Trace) -> list[bytes]:
    """Return the stored files that a trace's inputs and outputs refer to."""
    refs = set(re.findall(r"mlflow-attachment://([0-9a-f-]{36})", trace.to_json()))
    place = urlsplit(trace.info.tags["mlflow.artifactLocation"]).path
    files = [Path(place, "attachments", ref) for ref in refs]
    return sorted(file.read_bytes() for file in files if file.exists())
