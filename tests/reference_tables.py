# ruff: noqa: E501 - a row of a table is a line
"""The tables that are generated from the code, in pages that are otherwise written by hand.

A table stands between ``<!-- from the code: NAME -->`` and ``<!-- end -->``; ``python -m tests.reference`` fills it in.
Words that a row needs, and the code does not have, are here, by the row's name in the code: a new name fails with a
`KeyError`, and one that is left over fails ``tests/project/test_reference.py``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from mlflow_middleware._internal.exclusion import EXCLUDED, NAMES
from mlflow_middleware._internal.platforms import PLATFORMS, TAGS
from mlflow_middleware._internal.route_options import PER_ROUTE
from mlflow_middleware.commands.check import STEPS
from mlflow_middleware.commands.traces import Row
from mlflow_middleware.identity_presets import PRESETS
from mlflow_middleware.metrics import METRICS, REASONS
from mlflow_middleware.request import keeping
from mlflow_middleware.trace.record import KEPT
from tests import reference_secrets
from tests.servers import ROOT

CORE = ROOT / "middleware" / "mlflow_middleware"
DJANGO_CHECKS = ROOT / "adapters" / "mlflow_middleware" / "django" / "checks.py"

_PLACE = re.compile(r"(<!-- from the code: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
"""A place. A blank line follows and precedes its comments: Markdown takes what touches a comment for a part of it."""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [" | ".join(cells) for cells in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(re.sub(" {2,}", " ", f"| {line} |") for line in lines)


def code(words: Sequence[str], between: str = ", ") -> str:
    """Return words, each in backticks."""
    return between.join(f"`{word}`" for word in words)


# --- the steps of the check, and Django's ids ---

STEP_FAILS = {
    "MLflow client": "the installed version is too old or of an unknown shape, and which are supported",
    "settings": "each unknown or ill-typed option",
    "tracking URI": "not set, malformed, or a database or folder that only full mlflow can write to",
    "reachability": "nothing listens, no answer in 3 s, a 5xx, or a proxy in the way: which variable, and what to add to `NO_PROXY`",
    "TLS": "a certificate that is not trusted, expired, or for another name; a server that speaks plain HTTP",
    "clock": "this machine's clock is more than 60 s off the server's",
    "server version": "older than 3.4; or a login page instead of a server",
    "credentials": "401, and the variables to look at; 403, and the permissions that this user needs, or the proxy that denies it; a host name that the server does not know, and its option `--allowed-hosts`",
    "experiment": "an unknown id, a deleted experiment, a name and an id that contradict each other; also an experiment of the option `experiment`",
    "write": "the server's answer; or tracing is switched off in this process",
    "read back": "the server accepted the trace and does not find it",
    "latency": "it never fails: it reports how long an answer and storing a trace took",
    "spool": "the directory cannot be created or written",
    "collector": "an OTLP collector that OpenTelemetry's variables name is unreachable, or refuses a request",
}
"""Step of the check -> its report if it fails."""

CHECK_MEANS = {
    "E001": "an option is unknown or ill-typed: one message for each",
    "W001": "`mlflow_middleware.django` is installed, but the middleware is not in `MIDDLEWARE`",
}
"""Id of one of Django's system checks that is no step of the check -> the condition."""


def step_ids() -> dict[str, str]:
    """Return the ids of the steps. They are read from the source, as Django may not be installed."""
    module = ast.parse(DJANGO_CHECKS.read_text())
    (ids,) = [
        node.value
        for node in module.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STEP_IDS"
    ]
    found: dict[str, str] = ast.literal_eval(ids)
    return found


def other_ids() -> set[str]:
    """Return the ids of the other system checks."""
    nodes = ast.walk(ast.parse(DJANGO_CHECKS.read_text()))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {found[1] for found in (re.fullmatch(r"mlflow_middleware\.([EW]\d{3})", text) for text in texts) if found}


def check_steps() -> str:
    """Return the steps, in order."""
    needs = {name: ", ".join(before) for name, before, _ in STEPS}
    return table(
        ["step", "reported when it fails", "needs"],
        [[name, STEP_FAILS[name], needs[name]] for name, _, _ in STEPS],
    )


def django_checks() -> str:
    """Return the ids, in order."""
    rows = {each: ["always", CHECK_MEANS[each]] for each in other_ids()}
    rows |= {each: ["with `--deploy`", f"the step *{step}* of the check fails"] for step, each in step_ids().items()}
    return table(
        ["id", "checked", "reported if"], [[f"`mlflow_middleware.{each}`", *rows[each]] for each in sorted(rows)]
    )


# --- identity ---

PLATFORM = {
    "databricks-apps": "Databricks Apps",
    "open-webui": "Open WebUI",
    "librechat": "LibreChat",
    "cloudflare-access": "Cloudflare Access",
    "azure-easy-auth": "Azure App Service",
    "iap": "Google's IAP",
}
"""Preset -> the platform's own name."""

PRESET_NEEDS = {
    "open-webui": "with `ENABLE_FORWARD_USER_INFO_HEADERS=true`",
    "librechat": "with the headers below",
}
"""Preset -> the configuration that the platform needs, if any."""


def _source(source: str) -> str:
    kind, _, name = source.partition(".")
    return f"`{name}`" if kind == "header" else f"the {kind}'s `{name}`"


def identity_presets() -> str:
    """Return the sources of each preset."""
    rows = []
    for name, preset in PRESETS.items():
        request, session, user = (", else ".join(map(_source, sources)) for sources in preset.lists)
        user += f", the part after its last `{preset.after}`" if preset.after else ""
        link = f"[{PLATFORM[name]}]({preset.documented})"
        rows.append([f"`{name}`", request, session, user, ", ".join(filter(None, [link, PRESET_NEEDS.get(name)]))])
    return table(["preset", "request", "session", "user", "documented"], rows)


# --- deployment ---

NOT_SIMPLY = {
    ("ecs", "deployment_id"): "the id in `ECS_CONTAINER_METADATA_URI_V4`",
    ("kubernetes", "environment"): "`POD_NAMESPACE`, or the service account's",
}
"""Platform and tag -> its value, if that is not simply a variable's."""


def platforms() -> str:
    """Return the variables of each platform."""
    rows = [
        [f"`{name}`", *(NOT_SIMPLY.get((name, tag)) or code(getattr(platform, tag)) for tag in TAGS)]
        for name, platform in PLATFORMS.items()
    ]
    return table(["platform, as `detect_deployment` names it", *TAGS], rows)


# --- metrics and counts ---


def metrics() -> str:
    """Return all metrics, by their names in Prometheus and in OpenTelemetry."""
    rows = [[f"`{each.prometheus_name}`", f"`{each.name}`", each.kind, each.help] for each in METRICS]
    return table(["Prometheus", "OpenTelemetry", "type", "meaning"], rows)


def drop_reasons() -> str:
    """Return the reasons for lost traces."""
    return code(REASONS)


LEFT_OUT_BY = {
    "preflight": "`exclude`, by a name",
    "head": "`exclude`, by a name",
    "docs": "`exclude`, by a name",
    "unrouted": "`exclude`, by a name",
    EXCLUDED: "`exclude`, by a path",
    keeping.NOT_GENAI: '`keep="genai"`',
    keeping.SAMPLED_OUT: "`sample_ratio`",
    keeping.DROPPED_BY_APP: "`drop_trace()`",
}
"""Reason of `Stats.left_out` -> the option or function."""

LEFT_OUT = {
    "preflight": "the `OPTIONS` requests by which browsers ask for permission for another one; known at the start",
    "head": "all `HEAD` requests; known at the start",
    "docs": "schemas (`/openapi.json`, `/swagger.json`, also below a prefix), known at the start, and pages of an API's documentation: `GET` of `/docs`, `/redoc`, `/swagger`, ... (also below a prefix), if the answer is HTML, which is known at the end",
    "unrouted": "a 404 of FastAPI, Starlette, Flask or Django where no route took the request; known at the end",
    EXCLUDED: "requests for the path",
    keeping.NOT_GENAI: "requests without a span inside whose bodies do not look like [traffic of a language model](#only-a-models-traffic)",
    keeping.SAMPLED_OUT: "all but a share; whole sessions",
    keeping.DROPPED_BY_APP: "requests that [the app chooses](#from-inside)",
}
"""Reason -> the requests."""


def left_out_reasons() -> list[str]:
    """Return the reasons in the code: the names for `exclude`, and the constants of the module that decides."""
    decided = [value for name, value in vars(keeping).items() if name.isupper() and isinstance(value, str)]
    return list(
        dict.fromkeys([*NAMES, EXCLUDED, *(each for each in decided if each not in (KEPT, keeping.NOT_COUNTED))])
    )


def left_out() -> str:
    """Return the reasons why requests have no trace."""
    rows = [[f"`{reason}`", LEFT_OUT_BY[reason], LEFT_OUT[reason]] for reason in left_out_reasons()]
    return table(["counted as", "by", "left out"], rows)


def route_options() -> str:
    """Return the options that an entry of ``routes`` can have."""
    return code(PER_ROUTE)


# --- commands and feedback ---


def rows_of_traces() -> str:
    """Return the names in the JSON of ``mlflow-middleware traces``."""
    return code([field.name for field in fields(Row)])


STATUS_MEANS = {
    200: "stored; `trace_id` names the trace",
    403: "a token that is missing, wrong, expired, or for another trace, user or session; or the trace has reached its limit of votes",
    404: "no such trace, request or session is stored, or it is another user's and session's; the answer does not reveal which",
    413: "the body is larger than 64 KiB",
    415: "the body is not declared as JSON",
    422: "the body is invalid",
    503: "the tracking server does not answer within 2 s, or `MLFLOW_TRACKING_URI` is not the address of one, or there are too many votes at a time, or on one trace; `Retry-After` has the time to wait",
}
"""Status of the answer to feedback -> its meaning."""


def feedback_statuses() -> list[int]:
    """Return the statuses in the code: those of each `FeedbackError`, and of the answer to a stored vote."""
    nodes = [
        node for path in sorted((CORE / "feedback").glob("*.py")) for node in ast.walk(ast.parse(path.read_text()))
    ]
    calls = [
        node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) in ("FeedbackError", "Answer")
    ]
    first = [call.args[0] for call in calls if call.args]
    return sorted({each.value for each in first if isinstance(each, ast.Constant) and isinstance(each.value, int)})


def feedback() -> str:
    """Return the statuses, in order."""
    rows = [[str(status), STATUS_MEANS[status]] for status in feedback_statuses()]
    return table(["status", "meaning; `detail` in the answer gives the reason"], rows)


# --- the pages ---

TABLES: dict[str, Callable[[], str]] = {
    "check-steps": check_steps,
    "django-checks": django_checks,
    "identity-presets": identity_presets,
    "platforms": platforms,
    "metrics": metrics,
    "drop-reasons": drop_reasons,
    "left-out": left_out,
    "route-options": route_options,
    "feedback-statuses": feedback,
    "secret-keys": reference_secrets.keys,
    "secret-values": reference_secrets.values,
    "rows-of-traces": rows_of_traces,
}


def places() -> Iterator[tuple[Path, str]]:
    """Yield each page that has such a place, and the place's name."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        yield from ((page, found[2]) for found in _PLACE.finditer(page.read_text()))


def filled(page: Path) -> str:
    """Return a page with its tables filled in."""
    return _PLACE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", page.read_text())
