"""The names and limits of MLflow's stored format, as MLflow writes and reads them.

They are literals because the format outlives MLflow's Python names for it (mlflow/tracing/constant.py,
mlflow/entities/span.py, mlflow/store/tracking/dbmodels/models.py). A test compares them with the installed MLflow.
"""

from __future__ import annotations

# Tags of a trace
NAME = "mlflow.traceName"
CLIENT_REQUEST_ID = "client_request_id"
MODELS = "gen_ai.response.model"

# Metadata of a trace
SESSION = "mlflow.trace.session"
USER = "mlflow.trace.user"
TRACE_INPUTS = "mlflow.traceInputs"
TRACE_OUTPUTS = "mlflow.traceOutputs"
TOKEN_USAGE = "mlflow.trace.tokenUsage"  # noqa: S105 - not a secret
TRACE_COST = "mlflow.trace.cost"
SIZE_STATS = "mlflow.trace.sizeStats"
SIZE_BYTES = "mlflow.trace.sizeBytes"
SOURCE_RUN = "mlflow.sourceRun"
MODEL_ID = "mlflow.modelId"
SCHEMA_VERSION = "mlflow.trace_schema.version"

# Attributes of a span
REQUEST_ID = "mlflow.traceRequestId"
EXPERIMENT_ID = "mlflow.experimentId"
SPAN_TYPE = "mlflow.spanType"
INPUTS = "mlflow.spanInputs"
OUTPUTS = "mlflow.spanOutputs"
USAGE = "mlflow.chat.tokenUsage"
COST = "mlflow.llm.cost"
MODEL = "mlflow.llm.model"
PROVIDER = "mlflow.llm.provider"
LOG_LEVEL = "mlflow.spanLogLevel"

DEBUG, INFO, ERROR = 10, 20, 40
"""Levels of a span (mlflow/entities/span_log_level.py: SpanLogLevel)."""

SCHEMA = "3"
"""The version of the trace format that this package writes."""

MAX_METADATA = 250
"""Maximum length of a metadata key or value, in characters."""

MAX_TAG_KEY = 250
"""Maximum length of a tag's name, in characters."""

MAX_TAG_VALUE = 4096
"""Maximum length of a tag's value, in characters."""

MAX_PREVIEW = 1000
"""Maximum length of a preview on a tracking server, in characters; a Databricks workspace accepts more."""

MAX_CLIENT_REQUEST_ID = 50
"""Maximum length of the column ``client_request_id`` (SqlTraceInfo), in characters."""
