"""Every option of the middleware: once, with type, default and meaning.

Filled, strongest first, from keywords, from the framework's own settings, from the environment
(``MLFLOW_MIDDLEWARE_<OPTION>``), from the default. In the environment a list is written ``a,b`` and a mapping
``key=value,key=value``; both may also be JSON. Anything unknown or ill-typed raises ``SettingsError``, which
names the option, what was given and what is allowed.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from mlflow_middleware.capture import Redactor
from mlflow_middleware.identity import clean_text
from mlflow_middleware.option_problems import ENV_PREFIX, ill_typed, shortened, unknown_options
from mlflow_middleware.option_types import (
    HeaderName,
    HeaderNames,
    Identify,
    Mask,
    Names,
    Patterns,
    ResponseHeaders,
    Secrets,
    Statuses,
    TextMapping,
    compiled_globs,
)

__all__ = ["ENV_PREFIX", "MAX_TAG_VALUE", "Settings", "SettingsError"]

MAX_TAG_VALUE = 4096
"""Characters of a trace tag's value that an MLflow server stores."""


class SettingsError(ValueError):
    """An option that does not exist, or a value that it does not take.

    Attributes:
        problems: One sentence for each wrong option.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("mlflow-middleware is misconfigured: " + "; ".join(problems))
        self.problems = problems


_STRICT: dict[str, object] = {
    "capture_request_body": False,
    "capture_response_body": False,
    "capture_headers": (),
    "client_address": "none",
    "capture_user_agent": False,
}
"""The options that `privacy="strict"` sets."""


@functools.cache
def _process_key() -> str:
    """A key for pseudonyms where none is given: they are the same within a process, and the workers that it forks."""
    return secrets.token_hex(32)


class Settings(BaseSettings):
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

    identify: Identify | None = None
    """A callable (or its dotted path) from `Exchange` to `Identity`, called when the response starts: what
    framework auth knows of the caller beats the headers."""

    user_id_hmac_key: SecretStr | None = Field(default=None, min_length=1)
    """Store HMAC-SHA256(key, user id) instead of the user id."""

    deployment_tags: TextMapping = {
        "environment": "ENVIRONMENT",
        "app_version": "APP_VERSION",
        "deployment_id": "DEPLOYMENT_ID",
        "region": "REGION",
    }
    """Trace tag -> environment variable, read once at start-up; an unset variable gives no tag."""

    tags: TextMapping = {}
    """Fixed tags for every trace."""

    response_headers: ResponseHeaders = {"request_id": "X-Request-ID", "trace_id": "X-MLflow-Trace-ID"}
    """What the response tells the client, and in which header: any of `request_id`, `session_id`, `user_id`,
    `trace_id`. Exposed to browsers on cross-origin requests. The request id goes back in `request_id_header`
    unless another header is named here."""

    exclude: Names = ("/health", "/healthz", "/livez", "/readyz", "/metrics", "/favicon.ico")
    """Path globs (`*`, `?`, `[...]`) that are not traced; MLflow spans opened inside are silenced too."""

    metadata_only: Names = ()
    """Path globs whose bodies and query strings are never captured, and whose route is stored instead of the path."""

    capture_request_body: bool = True
    """True: what the app reads of a request's body becomes the root span's inputs, with its query string."""

    capture_response_body: bool = True
    """True: what the client is sent becomes the root span's outputs."""

    max_body_bytes: int = Field(default=65536, ge=0, le=16 * 1024 * 1024)
    """Bytes that are kept of one body; the rest is counted, not kept."""

    mask: Mask | None = None
    """A callable (or its dotted path) that is given each `Exchange` before it is stored, and may change its `inputs`
    and `outputs`: for secrets that `redact` cannot know. Called in the thread that delivers; when it raises, that
    trace has neither."""

    capture_headers: HeaderNames = ()
    """Request headers put on the root span, as `http.request.header.<name>`."""

    redact: Names = ("default",)
    """Keys whose values are replaced, in bodies at any depth, query strings, captured headers, exceptions and child
    spans; `default` stands for those of `capture.secret_keys`. A key matches by whole words: `api_key` covers
    `X-API-Key` and `openaiApiKey`; `token` does not cover `max_tokens`."""

    redact_values: Patterns = ("default",)
    """Regular expressions of what is replaced under any key; `default` stands for those of `capture.secret_values`:
    `sk-…`, `ghp_…`, JSON web tokens, private keys, passwords in URLs and others."""

    redact_spans: bool = True
    """True: the inputs, outputs and attributes of the app's own spans are redacted, too, before they are sent."""

    client_address: Literal["full", "network", "none"] = "full"
    """What is kept of the client's IP address: all, its network (the first 24 bits, of IPv6 48), or nothing."""

    capture_user_agent: bool = True
    """False: the request's `User-Agent` is not kept."""

    privacy: Literal["default", "strict"] = "default"
    """`strict`: no bodies, query strings, captured headers, client addresses and user agents, and user ids as
    pseudonyms, whatever the other options say."""

    error_statuses: Statuses = frozenset(range(500, 600))
    """Status codes that make the trace an error, as numbers and `500-599` ranges."""

    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of traces kept; decided by the session id, if any: all processes keep or drop a conversation whole."""

    sample_key: SecretStr | None = Field(default=None, min_length=1)
    """What the share is drawn with, so that nobody can choose a session id that is kept or dropped. The same in all
    processes that share conversations; by default `user_id_hmac_key`, else the experiment's name."""

    keep_errors: bool = True
    """True: a trace that is an error is kept whatever the ratio says."""

    keep_slower_than: float | None = Field(default=None, ge=0)
    """Seconds from which on a request is kept whatever the ratio says; None for no such limit."""

    trust_incoming_trace: bool = False
    """True: a W3C `traceparent` becomes the parent; false: the trace has its own root and a span link to it."""

    delivery: Literal["auto", "mlflow"] = "auto"
    """`auto`: traces go by our delivery, to `http(s)` tracking servers, to Databricks, and with full MLflow to a
    database or folder of its own; `mlflow`: MLflow's own exporter stays. For this and the next four, the first
    middleware of a process decides."""

    max_queue_bytes: int = Field(default=64 * 1024 * 1024, ge=64 * 1024)
    """Bytes of finished traces that may wait in one process; beyond that the newest are dropped and counted."""

    spool_dir: Path | None = None
    """A directory for what cannot be sent now: kept across a crash or a restart, and sent later."""

    max_spool_bytes: int = Field(default=1024 * 1024 * 1024, ge=64 * 1024)
    """Bytes that the spool's files may take."""

    shutdown_timeout: float = Field(default=5.0, ge=0, le=600)
    """Seconds that an exit may take to deliver what still waits."""

    handle_signals: bool = True
    """True: where SIGTERM or SIGHUP would simply kill the process, what still waits is delivered first, within
    `shutdown_timeout`. A handler of the server's or the app's own stays in place."""

    flush_each_request: bool = False
    """True: the end of each answer waits until its trace is delivered, for `shutdown_timeout` at most; for hosts that
    freeze the process after it, such as AWS Lambda and Cloud Run. It costs each request two requests to the server."""

    feedback_secret: Secrets | None = None
    """Secrets of at least 16 characters that sign ``X-Feedback-Token``: with them, feedback is taken only together with
    the token that the response carried. The first signs, all are accepted, so that a secret can be replaced."""

    feedback_wait: float | None = Field(default=None, ge=0, le=60)
    """Seconds that feedback waits for its trace to be stored; by default 5 in FastAPI and Starlette. On WSGI
    and in Django, where a vote that waits holds one of the app's threads, by default only for a trace that this process
    has just finished."""

    @model_validator(mode="after")
    def _echo_the_request_id_where_it_is_read(self) -> Settings:
        if "response_headers" not in self.model_fields_set:
            self.response_headers["request_id"] = self.request_id_header
        return self

    @model_validator(mode="after")
    def _is_strict(self) -> Settings:
        if self.privacy == "strict":
            self.__dict__.update(_STRICT)
            if self.user_id_hmac_key is None:
                self.__dict__["user_id_hmac_key"] = SecretStr(_process_key())
        return self

    @classmethod
    def load(cls, framework: Mapping[str, object] | None = None, /, **keywords: object) -> Settings:
        """Build the settings from all their sources.

        Args:
            framework: The framework's own settings; names in any case.
            keywords: Options given in code; they win.

        Raises:
            SettingsError: An option is unknown or ill-typed; it names each.
        """
        if not isinstance(framework or {}, Mapping):
            raise SettingsError([f"the framework's settings must be a dict of options, not {shortened(framework)}"])
        given = {str(key).lower(): value for key, value in (framework or {}).items()} | keywords
        problems = list(unknown_options(given, cls.model_fields))
        known = {name: value for name, value in given.items() if name in cls.model_fields}
        try:
            settings = cls(**known)  # type: ignore[arg-type]
        except ValidationError as error:
            problems += [ill_typed(dict(detail), known) for detail in error.errors(include_url=False)]
            raise SettingsError(problems) from None
        except ValueError as error:
            raise SettingsError([*problems, str(error)]) from None
        if problems:
            raise SettingsError(problems)
        return settings

    def laid_over(self, below: Settings, names: Iterable[str]) -> Settings:
        """Combine these options of ours with all others from ``below``."""
        own = set(names)  # not a copy of either, which would bring the other options' cached properties with it
        values = {name: getattr(self if name in own else below, name) for name in type(self).model_fields}
        return type(self).model_construct(below.model_fields_set | own, **values)

    @functools.cached_property
    def trace_tags(self) -> dict[str, str]:
        """The fixed tags and those of the deployment, as its environment variables are set now."""
        tags = {tag: os.environ.get(variable) for tag, variable in self.deployment_tags.items()} | self.tags
        return {tag: text for tag, value in tags.items() if (text := clean_text(value, MAX_TAG_VALUE))}

    @functools.cached_property
    def trace_tag_items(self) -> tuple[tuple[str, str], ...]:
        """The items of `trace_tags`."""
        return tuple(self.trace_tags.items())

    @functools.cached_property
    def identity_headers(self) -> tuple[str, str, str]:
        """The names of the headers with the request, session and user id, lower-case."""
        return self.request_id_header.lower(), self.session_id_header.lower(), self.user_id_header.lower()

    @functools.cached_property
    def redactor(self) -> Redactor:
        """Replaces what `redact` and `redact_values` say."""
        return Redactor(self.redact, self.redact_values)

    @functools.cached_property
    def sampling_key(self) -> bytes:
        """What the share of traces that are kept is drawn with."""
        key = self.sample_key or self.user_id_hmac_key
        names = ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")
        experiment = next(filter(None, map(os.environ.get, names)), "")
        return (key.get_secret_value() if key else experiment).encode("utf-8", "surrogateescape")

    @functools.cached_property
    def hmac_key(self) -> bytes | None:
        """The bytes of `user_id_hmac_key`."""
        return self.user_id_hmac_key.get_secret_value().encode() if self.user_id_hmac_key else None

    @functools.cached_property
    def feedback_keys(self) -> tuple[bytes, ...]:
        """The bytes of the secrets in `feedback_secret`."""
        return tuple(secret.get_secret_value().encode() for secret in self.feedback_secret or ())

    def excludes(self, path: str) -> bool:
        """Whether requests to this path are not traced."""
        return self._excluded is not None and self._excluded.fullmatch(path) is not None

    def kept_of_bodies(self, path: str) -> tuple[int, int]:
        """Return how many bytes are kept of a request's and of its response's body."""
        if self.is_metadata_only(path):
            return 0, 0
        limit = self.max_body_bytes
        return (limit if self.capture_request_body else 0), (limit if self.capture_response_body else 0)

    def is_metadata_only(self, path: str) -> bool:
        """Whether nothing that a client says to this path is kept but its headers."""
        return self._metadata_only is not None and self._metadata_only.fullmatch(path) is not None

    def keeps_query(self, path: str) -> bool:
        """Whether the query string of a request to this path is kept."""
        return self.capture_request_body and not self.is_metadata_only(path)

    @functools.cached_property
    def _excluded(self) -> re.Pattern[str] | None:
        return compiled_globs(self.exclude)

    @functools.cached_property
    def _metadata_only(self) -> re.Pattern[str] | None:
        return compiled_globs(self.metadata_only)
