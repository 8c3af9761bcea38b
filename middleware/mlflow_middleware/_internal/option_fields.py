"""The options of the middleware, declared: each once, with type, default and meaning."""

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
    """Where the request id is read; one is generated where it is missing or unacceptable."""

    session_id_header: HeaderName = "X-Session-ID"
    """Where the session (conversation) id is read."""

    user_id_header: HeaderName = "X-User-ID"
    """Where the user id is read."""

    request_id_from: SourceNames | None = None
    """Where the request id is read instead of `request_id_header`: a list of sources, the first that has one wins; see
    `identity_sources`: `header.X-ID`, `query.id`, `cookie.id`, `path.id`, `body.id`, `scope.user.id`, `jwt.sub`,
    `baggage.id`."""

    session_id_from: SourceNames | None = None
    """Where the session (conversation) id is read instead of `session_id_header`, such as
    `body.context.conversation_id`."""

    user_id_from: SourceNames | None = None
    """Where the user id is read instead of `user_id_header`, such as `scope.user.id`."""

    identity_preset: PresetName | None = None
    """The platform or chat interface in front of the app, whose headers say who asks; the three lists above win."""

    identify: Identify | None = None
    """A callable (or its dotted path) from `Exchange` to `Identity`, called when the response starts; its
    ids, such as those of the framework's authentication, win over the headers."""

    user_id_hmac_key: SecretStr | None = Field(default=None, min_length=1)
    """Store HMAC-SHA256(key, user id) instead of the user id."""

    deployment_tags: TextMapping = {
        "environment": "ENVIRONMENT",
        "app_version": "APP_VERSION",
        "deployment_id": "DEPLOYMENT_ID",
        "region": "REGION",
    }
    """Trace tag -> environment variable, read once at start-up; an unset variable gives no tag, unless the hosting
    platform supplies it: see `detect_deployment`."""

    detect_deployment: Platforms = tuple(PLATFORMS)
    """Hosting platforms (Kubernetes, Cloud Run, ECS, Heroku and so on) that are recognized by their environment
    variables and supply `environment`, `app_version`, `deployment_id` and `region`, unless the variables of
    `deployment_tags` do. `true` stands for all, `false` for none; `docs/deployment.md` has a table."""

    tags: TextMapping = {}
    """Fixed tags for every trace."""

    response_headers: ResponseHeaders = {"request_id": "X-Request-ID", "trace_id": "X-MLflow-Trace-ID"}
    """The ids that the response carries, each with its header: any of `request_id`, `session_id`, `user_id`,
    `trace_id`. Exposed to browsers on cross-origin requests. The request id goes back in `request_id_header`
    unless another header is named here."""

    exclude: Exclusions = exclusion.DEFAULT
    """Requests that are not traced; MLflow spans opened inside are silenced too. Path globs (`*`, `?`, `[...]`), for
    all methods or one (`OPTIONS *`, `GET /x`), and names: `preflight` (the `OPTIONS` requests that browsers send
    before cross-origin requests), `head` (all `HEAD` requests), `docs` (pages and schemas of the API's documentation),
    `unrouted` (404s of a framework that reports routes, if no route matched, unless it is an error or a span was
    opened inside), and `default` (all that is excluded by default)."""

    include: Exclusions = ()
    """Requests that are traced even if `exclude` matches them: the same names and globs; `head` switches `HEAD`
    requests on again."""

    keep: Literal["all", "genai"] = "all"
    """`genai`: only requests in which a span was opened, whose bodies (as far as they are captured) look like traffic
    of a language model, or that are errors; the rest is counted in `delivery.stats()`, not sent."""

    routes: Routes = {}
    """Options for some requests: a route's template or a path glob, maybe with a method (`POST /search*`) -> options.
    All matching entries apply, and later ones win."""

    experiment: str | None = Field(default=None, min_length=1)
    """Where traces go, instead of the experiment that MLflow's variables name: a name (created if missing) or an id,
    which has digits only."""

    content: Literal["all", "none"] = "all"
    """`none`: no words of users or models are stored, whatever the other options say: not in bodies, query strings,
    previews, error messages or the app's own spans. Models, tokens, times and sizes are; bodies are read for these
    only."""

    metadata_only: Names = ()
    """Path globs for which `content` is `none`, and whose route is stored instead of the path."""

    capture_request_body: bool = True
    """True: the request body, as far as the app reads it, and the query string become the root span's inputs."""

    capture_response_body: bool = True
    """True: the response body, as far as it is sent, becomes the root span's outputs."""

    max_body_bytes: int = Field(default=65536, ge=0, le=16 * 1024 * 1024)
    """Bytes kept of each body; the rest is counted, not kept."""

    mask: Mask | None = None
    """A callable (or its dotted path) that is given each `Exchange` before it is stored, and may change its `inputs`
    and `outputs`: for secrets that `redact` cannot know. Called in the thread that delivers; when it raises, that
    trace has neither."""

    capture_headers: HeaderNames = ()
    """Request headers put on the root span, as `http.request.header.<name>`."""

    redact: RedactedKeys = ("default",)
    """Keys whose values are replaced, in bodies at any depth, query strings, captured headers, exceptions and child
    spans; `default` stands for those of `capture.secret_keys`. A key matches by whole words: `api_key` covers
    `X-API-Key` and `openaiApiKey`; `token` does not cover `max_tokens`."""

    redact_values: Patterns = ("default",)
    """Regular expressions; text that matches is replaced under any key. `default` stands for those of
    `capture.secret_values`: `sk-…`, `ghp_…`, JSON web tokens, private keys, passwords in URLs and others."""

    redact_spans: bool = True
    """True: the inputs, outputs and attributes of the app's own spans are redacted, too, before they are sent."""

    client_address: Literal["full", "network", "none"] = "full"
    """How much of the client's IP address is kept: all, its network (the first 24 bits, of IPv6 48), or nothing."""

    trusted_proxies: Proxies = ()
    """IP addresses and networks (`10.0.0.0/8`) of your proxies, `unix` for a socket, `*` for any peer: from these the
    client's address, the scheme and the host are read in `Forwarded` or `X-Forwarded-For`, `-Proto`, `-Host`."""

    capture_user_agent: bool = True
    """False: the request's `User-Agent` is not kept."""

    privacy: Literal["default", "strict"] = "default"
    """`strict`: no bodies, query strings, captured headers, client addresses or user agents are stored, and user ids
    only as pseudonyms, whatever the other options say."""

    span_type: Literal["CHAIN", "AGENT", "CHAT_MODEL"] = "CHAIN"
    """The type of the root span, which MLflow's UI and its scorers use."""

    error_statuses: Statuses = frozenset(range(500, 600))
    """Status codes that make the trace an error, as numbers and `500-599` ranges."""

    error_when: ErrorRules = ()
    """Makes the trace an error, in addition to its status: `graphql` (its `errors`), `mcp` (`isError`, and JSON-RPC's
    `error`), `grpc-web` (its status, in headers, trailers or the body); a path into the answer, such as `body.errors`;
    a callable (or its dotted path) that is given the `Exchange` and returns the reason as text, true, or nothing."""

    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of traces kept; decided by the session id, if any: all processes keep or drop a conversation whole."""

    sample_key: SecretStr | None = Field(default=None, min_length=1)
    """A secret that decides which sessions are kept, so that clients cannot choose an id that is kept or dropped. It
    must be the same in all processes that share conversations; by default `user_id_hmac_key`, else the experiment's
    name."""

    keep_errors: bool = True
    """True: a trace that is an error is kept whatever the ratio says."""

    keep_slower_than: float | None = Field(default=None, ge=0)
    """Requests that take at least this many seconds are kept whatever the ratio says; None for no such limit."""

    trust_incoming_trace: bool = False
    """True: a W3C `traceparent` becomes the parent, and `session.id` and `user.id` of W3C `baggage` count where the
    headers are missing; false: the trace has its own root and a span link to it."""

    delivery: Literal["auto", "otlp", "mlflow"] = "auto"
    """`auto`: mlflow-middleware sends traces to `http(s)` tracking servers, to Databricks, and with full MLflow to its
    own database or folder; if `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` names a collector,
    a copy of each goes there. `otlp`: traces go to the collector only. `mlflow`: MLflow's own exporter sends them. For
    this and the next four options, the first middleware of a process decides."""

    max_queue_bytes: int = Field(default=64 * 1024 * 1024, ge=64 * 1024)
    """Bytes of finished traces that may wait in one process; beyond that the newest are dropped and counted."""

    spool_dir: Path | None = None
    """A directory for traces that cannot be sent now: they survive a crash or a restart, and are sent later."""

    max_spool_bytes: int = Field(default=1024 * 1024 * 1024, ge=64 * 1024)
    """Bytes that the spool's files may take."""

    shutdown_timeout: float = Field(default=5.0, ge=0, le=600)
    """Seconds that an exit may take to deliver waiting traces."""

    handle_signals: bool = True
    """True: where SIGTERM or SIGHUP would simply kill the process, waiting traces are delivered first, within
    `shutdown_timeout`. A handler of the server's or the app's own stays in place."""

    flush_each_request: bool = False
    """True: the end of each answer waits until its trace is delivered, for `shutdown_timeout` at most; for hosts that
    freeze the process after it, such as AWS Lambda and Cloud Run. It costs each request two requests to the server."""

    feedback_secret: Secrets | None = None
    """Secrets of at least 16 characters that sign ``X-Feedback-Token``: with them, feedback is taken only together with
    the token that the response carried. The first signs, all are accepted, so that a secret can be replaced."""

    trace_token_secret: Secrets | None = None
    """Secrets of at least 16 characters that sign ``X-MLflow-Trace-Token``: with that token, and `continue_trace`, a
    later request adds its spans to the trace of this one. The first signs, all are accepted."""

    feedback_wait: float | None = Field(default=None, ge=0, le=60)
    """Seconds that feedback waits for its trace to be stored; by default 5 in FastAPI and Starlette. On WSGI
    and in Django, where a vote that waits holds one of the app's threads, by default only for a trace that this process
    has just finished."""
