"""Steps of ``mlflow-middleware check`` that need no server: MLflow, the settings, the tracking URI, the spool."""

from __future__ import annotations

import importlib
from contextlib import suppress
from pathlib import Path

from mlflow_middleware._internal import supported
from mlflow_middleware.commands.check_chain import ONLY_COLLECTOR, Chain, NotNeeded, Wrong


def client(chain: Chain) -> str:
    """Check that MLflow can be imported and is compatible."""
    from mlflow_middleware import mlflow_bridge

    found = mlflow_bridge.found
    if found.summary:
        raise Wrong(found.summary)
    kind = "slim" if mlflow_bridge.client.is_slim() else "full"
    untried = ", newer than any version tested" if supported.is_untried(found.version) else ""
    return f"{found.package} ({kind}) {found.version}{untried} (supported: {supported.in_words()})"


def settings(chain: Chain) -> str:
    """Check that every option is known and well-typed."""
    from mlflow_middleware.settings import Settings, SettingsError

    try:
        chain.settings = (chain.load or Settings.load)()
    except SettingsError as error:
        raise Wrong(f"{error}; the app does not start until this is corrected") from error
    chain.is_off = not chain.settings.enabled
    if chain.is_off:
        return "valid, but enabled is false: no request is traced"
    if chain.settings.delivery == "mlflow":
        return "valid; delivery is 'mlflow': the app sends with MLflow's own exporter, this check does not"
    return "valid"


def tracking_uri(chain: Chain) -> str:
    """Check that traces can be sent to the tracking URI."""
    from mlflow_middleware import mlflow_bridge
    from mlflow_middleware.delivery.rest import ConnectionProblem, check_address, is_server, printable

    if chain.delivery == "otlp":
        raise NotNeeded(ONLY_COLLECTOR)
    is_set = mlflow_bridge.client.is_tracking_uri_set()
    is_known = is_set or not mlflow_bridge.client.is_slim()
    chain.uri = mlflow_bridge.client.tracking_uri() if is_known else ""
    if is_known and not is_server(chain.uri):
        raise NotNeeded(f"{printable(chain.uri)} is not a server: full MLflow writes to it directly")
    try:
        check_address(chain.uri)
    except ConnectionProblem as problem:
        raise Wrong(str(problem)) from problem
    if chain.uri.startswith("databricks"):
        with suppress(ImportError):  # the next step reports it
            importlib.import_module("databricks.sdk")  # takes seconds, which are not the server's
    return printable(chain.uri)


def spool(chain: Chain) -> str:
    """Check that the spool is writable, and report the number of files in it."""
    from mlflow_middleware.delivery.spool import Spool, SpoolFull, SpoolProblem

    directory = chain.settings.spool_dir
    if directory is None:
        raise NotNeeded("spool_dir is not set: traces that cannot be sent wait in memory")
    spool = Spool(directory, chain.settings.max_spool_bytes)
    try:
        spool.check()
    except SpoolFull as full:  # not a failure: the app must be able to start, so that it empties the spool
        return (
            f"{full} and takes no more until some of it is sent; raise MLFLOW_MIDDLEWARE_MAX_SPOOL_BYTES if "
            f"this happens again{_leftovers(directory, len(list(spool.files())))}"
        )
    except SpoolProblem as problem:
        raise Wrong(
            f"{problem}: make it a directory that this user can write to, or set MLFLOW_MIDDLEWARE_SPOOL_DIR to one"
        ) from problem
    return f"{directory} is writable{_leftovers(directory, len(list(spool.files())))}"


def _leftovers(directory: Path, files: int) -> str:
    aside = directory / "set-aside"
    unreadable = len(list(aside.iterdir())) if aside.is_dir() else 0
    message = ""
    if files:
        message += (
            f"; {files} file{'s' * (files != 1)} of traces still wait{'s' * (files == 1)} there: an app with this "
            f"spool_dir sends them, or mlflow-middleware replay {directory}"
        )
    if unreadable:
        message += f"; {unreadable} that could not be read: look at them in {aside}, and remove them"
    return message
