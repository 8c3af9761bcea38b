"""The step of ``mlflow-middleware check`` for an OTLP collector in OpenTelemetry's variables."""

from __future__ import annotations

from dataclasses import replace

from mlflow_middleware.commands.check_chain import ANSWER_TIME, Chain, NotNeeded, Wrong


def collector(chain: Chain) -> str:
    """Check that the collector accepts a request without spans, and report which traces it gets."""
    from mlflow_middleware.delivery import otlp_variables
    from mlflow_middleware.delivery.otlp_collector import OtlpCollector
    from mlflow_middleware.delivery.replies import PermanentError, RetryableError
    from mlflow_middleware.delivery.rest import printable

    wanted = chain.delivery
    if wanted == "mlflow":
        raise NotNeeded("delivery is 'mlflow': MLflow's own exporter uses OpenTelemetry's variables")
    found = otlp_variables.collector() if wanted == "otlp" else otlp_variables.named_collector()
    if found is None:
        variable = otlp_variables.endpoint_variable()
        raise NotNeeded(
            f"{variable} is set, but MLFLOW_ENABLE_OTLP_EXPORTER or OTEL_TRACES_EXPORTER turns it off"
            if variable
            else "OTEL_EXPORTER_OTLP_ENDPOINT is not set: traces go to the MLflow server only"
        )
    try:
        OtlpCollector(replace(found, timeout=min(found.timeout, ANSWER_TIME))).send_spans("", [])
    except (RetryableError, PermanentError) as problem:
        raise Wrong(str(problem)) from problem
    named = f"{found.variable} is set" if found.variable else "no variable is set"
    what = "all traces go" if wanted == "otlp" else "each trace goes to the MLflow server, and a copy"
    return f"{named}: {what} to {printable(found.url)}, which answers"
