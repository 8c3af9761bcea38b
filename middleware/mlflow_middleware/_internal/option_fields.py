"""Declarations of the middleware's options, with types, defaults and meanings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from mlflow_middleware._internal import exclusion
from mlflow_middleware._internal.option_problems import ENV_PREFIX
from mlflow_middleware._internal.option_types import (
    ErrorRules,
    Exclusions,
    HeaderName,
    HeaderNames,
    Identify,
    Mask,
    Names,
    Patterns,
    Platforms,
    PresetName,
    Proxies,
    RedactedKeys,
    ResponseHeaders,
    Routes,
    Secrets,
    SourceNames,
    Statuses,
    TextMapping,
)
from mlflow_middleware._internal.platforms import PLATFORMS


class Options(BaseSettings):
    """The middleware's options."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, enable_decoding=False, env_ignore_empty=True, extra="forbid", frozen=True
    )

    enabled: bool = True
    """False: the middleware passes everything through."""

    request_id_header: HeaderName = "X-Request-ID"
    """The request header with the request id; if it is missing or invalid, an id is generated."""

    session_id_header: HeaderName = "X-Session-ID"
    """The request header with the session (conversation) id."""

    user_id_header: HeaderName = "X-User-ID"
    """The request header with the user id."""

    request_id_from: SourceNames | None = None
    """Sources of the request id, instead of `request_id_header`; the first with a usable value wins. A source is one of
    `header.X-ID`, `query.id`, `cookie.id`, `path.id`, `body.id`, `scope.user.id`, `jwt.sub`, `baggage.id`; see
    `identity_sources`."""

    session_id_from: SourceNames | None = None
    """Sources of the session (conversation) id, instead of `session_id_header`, such as
    `body.context.conversation_id`."""

    user_id_from: SourceNames | None = None
    """Sources of the user id, instead of `user_id_header`, such as `scope.user.id`."""

    identity_preset: PresetName | None = None
    """The platform or chat interface in front of the app, whose headers carry the ids. The three lists above override
    it."""

    identify: Identify | None = None
    """A callable (or its dotted path) from `Exchange` to `Identity`, called when the response starts, so that the
    framework's authentication can override the headers."""

    user_id_hmac_key: SecretStr | None = Field(default=None, min_length=1)
    """Store HMAC-SHA256(key, user id) instead of the user id."""

    deployment_tags: TextMapping = {
        "environment": "ENVIRONMENT",
        "app_version": "APP_VERSION",
        "deployment_id": "DEPLOYMENT_ID",
        "region": "REGION",
    }
    """Trace tag -> environment variable, read once at start-up. An unset variable gives no tag, unless the hosting
    platform provides the value: see `detect_deployment`."""

    detect_deployment: Platforms = tuple(PLATFORMS)
    """The hosting platforms (Kubernetes, Cloud Run, ECS, Heroku and others) to recognize by the variables that they
    set. They provide `environment`, `app_version`, `deployment_id` and `region` if the variables of `deployment_tags`
    are unset. `true` means all, `false` none; `docs/deployment.md` has a table."""

    tags: TextMapping = {}
    """Fixed tags for every trace."""

    response_headers: ResponseHeaders = {"request_id": "X-Request-ID", "trace_id": "X-MLflow-Trace-ID"}
    """Ids to return to the client -> response header: any of `request_id`, `session_id`, `user_id`, `trace_id`. The
    headers are exposed to browsers on cross-origin requests. By default the request id is returned in
    `request_id_header`."""

    exclude: Exclusions = exclusion.DEFAULT
    """Requests that are not traced; MLflow spans opened inside them are suppressed. Entries are path globs (`*`, `?`,
    `[...]`), for all methods or one (`OPTIONS *`, `GET /x`), and names: `preflight` (CORS preflight requests of
    browsers), `head` (all `HEAD` requests), `docs` (pages and schemas of the API's documentation), `unrouted` (404s if
    the framework reports routes and none matched, unless it is an error or a span was opened inside), and `default` for
    all that is excluded by default."""

    include: Exclusions = ()
    """Requests to trace even if `exclude` matches them, as names and globs; `head` traces `HEAD` requests again."""

    keep: Literal["all", "genai"] = "all"
    """`genai`: keep only requests in which a span was opened, whose captured bodies look like traffic of a language
    model, or that are errors. The rest is counted in `delivery.stats()`, not sent."""

    routes: Routes = {}
    """Options per route: a route's template or a path glob, optionally with a method (`POST /search*`) -> options. All
    matching entries apply; later ones override earlier ones."""

    experiment: str | None = Field(default=None, min_length=1)
    """The experiment for the traces, instead of the one that MLflow's variables name: a name (created if missing), or
    an id, which consists of digits."""

    content: Literal["all", "none"] = "all"
    """`none`: store no content from bodies, query strings, previews, error messages and the app's own spans, regardless
    of the other options. Models, token counts, times and sizes are stored, and bodies are read only for these."""

    metadata_only: Names = ()
    """Path globs for which `content` is `none` and the route is stored instead of the path."""

    capture_request_body: bool = True
    """True: the request's body, as far as the app reads it, and its query string become the root span's inputs."""

    capture_response_body: bool = True
    """True: the response's body becomes the root span's outputs."""

    max_body_bytes: int = Field(default=65536, ge=0, le=16 * 1024 * 1024)
    """Maximum number of bytes kept of a body; the rest is only counted."""

    mask: Mask | None = None
    """A callable (or its dotted path) that receives each `Exchange` before it is stored and may change its `inputs` and
    `outputs`: for secrets that `redact` cannot know. It runs in the delivery thread. If it raises, the trace is stored
    without inputs and outputs."""

    capture_headers: HeaderNames = ()
    """Request headers to record on the root span, as `http.request.header.<name>`."""

    redact: RedactedKeys = ("default",)
    """Keys whose values are redacted, in bodies at any depth, query strings, captured headers, exceptions and child
    spans; `default` stands for the keys in `capture.secret_keys`. A key matches by whole words: `api_key` covers
    `X-API-Key` and `openaiApiKey`; `token` does not cover `max_tokens`."""

    redact_values: Patterns = ("default",)
    """Regular expressions of values that are redacted under any key; `default` stands for those in
    `capture.secret_values`: `sk-…`, `ghp_…`, JSON web tokens, private keys, passwords in URLs and others."""

    redact_spans: bool = True
    """True: redact the inputs, outputs and attributes of the app's own spans, too."""

    client_address: Literal["full", "network", "none"] = "full"
    """The part of the client's IP address to keep: all, its network (the first 24 bits; 48 for IPv6), or none."""

    trusted_proxies: Proxies = ()
    """IP addresses and networks (`10.0.0.0/8`) of your proxies; `unix` for a socket, `*` for any peer. For requests
    from these, the client's address, the scheme and the host are read from `Forwarded`, or from `X-Forwarded-For`,
    `-Proto` and `-Host`."""

    capture_user_agent: bool = True
    """False: the request's `User-Agent` is not kept."""

    privacy: Literal["default", "strict"] = "default"
    """`strict`: store no bodies, query strings, captured headers, client addresses or user agents, and user ids only as
    pseudonyms, regardless of the other options."""

    span_type: Literal["CHAIN", "AGENT", "CHAT_MODEL"] = "CHAIN"
    """The type of the root span, which MLflow's UI and scorers use to interpret it."""

    error_statuses: Statuses = frozenset(range(500, 600))
    """Status codes that make a trace an error, as numbers and ranges such as `500-599`."""

    error_when: ErrorRules = ()
    """Further rules that make a trace an error: `graphql` (its `errors`), `mcp` (`isError` and JSON-RPC's `error`),
    `grpc-web` (its status in headers, trailers or the body); a path into the response, such as `body.errors`; a
    callable (or its dotted path) that receives the `Exchange` and returns the reason as text, true, or nothing."""

    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """The share of traces to keep. If there is a session id, it decides: all processes keep or drop a conversation
    as a whole."""

    sample_key: SecretStr | None = Field(default=None, min_length=1)
    """The key for sampling, so that clients cannot choose a session id that is kept or dropped. Use the same key in all
    processes that share conversations. By default `user_id_hmac_key`, else the experiment's name."""

    keep_errors: bool = True
    """True: keep traces that are errors, regardless of the ratio."""

    keep_slower_than: float | None = Field(default=None, ge=0)
    """Keep requests that take longer than this many seconds, regardless of the ratio; None for no such limit."""

    trust_incoming_trace: bool = False
    """True: a W3C `traceparent` becomes the parent, and `session.id` and `user.id` of W3C `baggage` are used if the
    headers are missing. False: the trace has its own root, with a span link to the caller's span."""

    delivery: Literal["auto", "otlp", "mlflow"] = "auto"
    """`auto`: the middleware delivers traces itself, to `http(s)` tracking servers, to Databricks, and with full MLflow
    to a local database or folder; if `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` names a
    collector, it receives a copy. `otlp`: only the collector receives traces. `mlflow`: MLflow's own exporter is used.
    For this and the next four options, the first middleware of a process decides."""

    max_queue_bytes: int = Field(default=64 * 1024 * 1024, ge=64 * 1024)
    """Maximum size of pending traces in one process, in bytes; beyond that, new traces are dropped and counted."""

    spool_dir: Path | None = None
    """A directory for traces that cannot be sent now; they survive a crash or restart and are sent later."""

    max_spool_bytes: int = Field(default=1024 * 1024 * 1024, ge=64 * 1024)
    """Maximum size of all files in the spool directory, in bytes."""

    shutdown_timeout: float = Field(default=5.0, ge=0, le=600)
    """Seconds that an exit may take to deliver pending traces."""

    handle_signals: bool = True
    """True: if SIGTERM or SIGHUP would simply kill the process, deliver pending traces first, within
    `shutdown_timeout`. A handler of the server or the app stays in place."""

    flush_each_request: bool = False
    """True: the end of each response waits until its trace is delivered, for at most `shutdown_timeout`. For hosts that
    freeze the process after a response, such as AWS Lambda and Cloud Run. Costs two requests to the server per
    request."""

    feedback_secret: Secrets | None = None
    """Secrets of at least 16 characters that sign ``X-Feedback-Token``. If set, feedback is accepted only with the
    token from the response. The first secret signs and all are accepted, so that a secret can be rotated."""

    trace_token_secret: Secrets | None = None
    """Secrets of at least 16 characters that sign ``X-MLflow-Trace-Token``. With that token and `continue_trace`, a
    later request adds spans to this request's trace. The first secret signs and all are accepted."""

    feedback_wait: float | None = Field(default=None, ge=0, le=60)
    """Seconds that feedback waits for its trace to be stored. The default is 5 in FastAPI and Starlette. On WSGI and in
    Django, where a waiting vote blocks one of the app's threads, feedback by default waits only for a trace that this
    process has just finished."""
