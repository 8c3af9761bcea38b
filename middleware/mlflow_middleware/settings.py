"""Every option of the middleware: once, with type, default and meaning.

Filled, strongest first, from keywords, from the framework's own settings, from the environment
(``MLFLOW_MIDDLEWARE_<OPTION>``), from the default. In the environment a list is written ``a,b`` and a mapping
``key=value,key=value``; both may also be JSON. Anything unknown or ill-typed raises ``SettingsError``, which
names the option, what was given and what is allowed.
"""

from __future__ import annotations

import fnmatch
import functools
import inspect
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from mlflow_middleware.capture import Redactor
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.identity import Identity, clean_text

ENV_PREFIX = "MLFLOW_MIDDLEWARE_"
MAX_TAG_VALUE = 4096
"""Characters of a trace tag's value that an MLflow server stores."""

_STATUS_RANGE = re.compile(r"\s*([0-9]{3})\s*(?:-\s*([0-9]{3})\s*)?")


class SettingsError(ValueError):
    """An option that does not exist, or a value that it does not take.

    Attributes:
        problems: One sentence for each wrong option.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("mlflow-middleware is misconfigured: " + "; ".join(problems))
        self.problems = problems


def _split(value: object) -> object:
    """A list as the environment writes it: JSON, or parts between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _json(value, "a list is written a,b or as JSON")
    return [part.strip() for part in value.split(",") if part.strip()]


def _split_mapping(value: object) -> object:
    """A mapping as the environment writes it: JSON, or ``key=value`` parts between commas."""
    if not isinstance(value, str):
        return value
    allowed = "a mapping is written key=value,key=value or as JSON"
    if value.lstrip().startswith("{"):
        return _json(value, allowed)
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if not all(separator for _, separator, _ in pairs):
        raise ValueError(allowed)
    return {key.strip(): text.strip() for key, _, text in pairs}


def _json(text: str, allowed: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{allowed} ({error})") from None


def _statuses(value: object) -> object:
    """Status codes from numbers and ``"500-599"`` ranges."""
    parts = _split(value)
    if isinstance(parts, int) or not isinstance(parts, Iterable):
        parts = [parts]
    codes: set[int] = set()
    for part in parts:
        match = _STATUS_RANGE.fullmatch(str(part))
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 100 <= first <= last <= 599:
            raise ValueError("it takes status codes from 100 to 599, and ranges of them as 500-599")
        codes.update(range(first, last + 1))
    return codes


def _import(value: object) -> object:
    """A callable, or the dotted path of one: ``"shop.tracing.identify"`` or ``"shop.tracing:identify"``."""
    if not isinstance(value, str):
        return value
    module, _, name = value.replace(":", ".").rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"cannot import it: {error}") from error


def _is_plain(function: Callable[[Exchange], Any]) -> Callable[[Exchange], Any]:
    if inspect.iscoroutinefunction(function):
        raise ValueError("it takes a plain function, not an async one")
    return function


def _not_empty(values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not values:
        raise ValueError("it takes at least one secret")
    return values


HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
HeaderNames = Annotated[tuple[HeaderName, ...], BeforeValidator(_split)]
TextMapping = Annotated[dict[str, str], BeforeValidator(_split_mapping)]
ResponseHeaders = Annotated[
    dict[Literal["request_id", "session_id", "user_id", "trace_id"], HeaderName],
    BeforeValidator(_split_mapping),
]
Statuses = Annotated[frozenset[int], BeforeValidator(_statuses)]
Secret = Annotated[SecretStr, Field(min_length=16)]
Secrets = Annotated[tuple[Secret, ...], BeforeValidator(_split), AfterValidator(_not_empty)]
Identify = Annotated[Callable[[Exchange], Identity | None], BeforeValidator(_import), AfterValidator(_is_plain)]
Mask = Annotated[Callable[[Exchange], Any], BeforeValidator(_import), AfterValidator(_is_plain)]


class Settings(BaseSettings):
    """The middleware's options."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        enable_decoding=False,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
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
    """Store HMAC-SHA256(key, user id) in place of the user id."""

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
    unless said otherwise here."""

    exclude: Names = ("/health", "/healthz", "/livez", "/readyz", "/metrics", "/favicon.ico")
    """Path globs (`*`, `?`, `[...]`) that are not traced; MLflow spans opened inside are silenced too."""

    metadata_only: Names = ()
    """Path globs whose bodies are never captured."""

    capture_request_body: bool = True
    """True: what the app reads of a request's body becomes the root span's inputs."""

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

    redact: Names = (
        "password",
        "passwd",
        "secret",
        "token",
        "jwt",
        "api_key",
        "apikey",
        "private_key",
        "authorization",
        "credential",
        "credentials",
        "cookie",
        "signature",
    )
    """Keys whose values are replaced, in bodies at any depth, query strings and captured headers. A key matches by
    whole words: `api_key` covers `X-API-Key` and `openaiApiKey`; `token` does not cover `max_tokens`."""

    error_statuses: Statuses = frozenset(range(500, 600))
    """Status codes that make the trace an error, as numbers and `500-599` ranges."""

    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of traces kept; decided by the session id where there is one, so that a conversation is kept or dropped
    whole, in every process."""

    keep_errors: bool = True
    """True: a trace that is an error is kept whatever the ratio says."""

    keep_slower_than: float | None = Field(default=None, ge=0)
    """Seconds from which on a request is kept whatever the ratio says; None for no such limit."""

    trust_incoming_trace: bool = False
    """True: a W3C `traceparent` becomes the parent; false: the trace has its own root and a span link to it."""

    delivery: Literal["auto", "mlflow"] = "auto"
    """`auto`: traces go to `http(s)` tracking servers and to Databricks by our delivery; `mlflow`: MLflow's own
    exporter stays. For this and the next four, the first middleware of a process decides."""

    max_queue_bytes: int = Field(default=64 * 1024 * 1024, ge=64 * 1024)
    """Bytes of finished traces that may wait for the server in one process; past that the newest are dropped and
    counted."""

    spool_dir: Path | None = None
    """A directory for what cannot be sent now: kept across a crash or a restart, and sent later."""

    max_spool_bytes: int = Field(default=1024 * 1024 * 1024, ge=64 * 1024)
    """Bytes that the spool's files may take."""

    shutdown_timeout: float = Field(default=5.0, ge=0, le=600)
    """Seconds that an exit may take to deliver what still waits."""

    feedback_secret: Secrets | None = None
    """Secrets of at least 16 characters that sign ``X-Feedback-Token``: with them, feedback is taken only together with
    the token that the response carried. The first signs, all are accepted, so that a secret can be replaced."""

    feedback_wait: float = Field(default=5.0, ge=0, le=60)
    """Seconds that feedback waits for its trace to be stored."""

    @model_validator(mode="after")
    def _echo_the_request_id_where_it_is_read(self) -> Settings:
        if "response_headers" not in self.model_fields_set:
            self.response_headers["request_id"] = self.request_id_header
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
            raise SettingsError([f"the framework's settings must be a dict of options, not {_short(framework)}"])
        given = {str(key).lower(): value for key, value in (framework or {}).items()} | keywords
        problems = [_unknown(name, cls) for name in given if name not in cls.model_fields]
        problems += [
            f"{_unknown(name, cls)}{_from_environment(name)}"
            for name in _environment_options()
            if name not in cls.model_fields
        ]
        known = {name: value for name, value in given.items() if name in cls.model_fields}
        try:
            settings = cls(**known)  # type: ignore[arg-type]
        except ValidationError as error:
            problems += [_ill_typed(dict(detail), known) for detail in error.errors(include_url=False)]
            raise SettingsError(problems) from None
        except ValueError as error:
            raise SettingsError([*problems, str(error)]) from None
        if problems:
            raise SettingsError(problems)
        return settings

    def laid_over(self, below: Settings, names: Iterable[str]) -> Settings:
        """Settings with these options from here, and all others from ``below``."""
        own = set(names)  # not a copy of either, which would bring the other options' cached properties with it
        values = {name: getattr(self if name in own else below, name) for name in type(self).model_fields}
        return type(self).model_construct(below.model_fields_set | own, **values)

    @functools.cached_property
    def trace_tags(self) -> dict[str, str]:
        """The fixed tags and those of the deployment, as its environment variables stand now."""
        deployment = {tag: os.environ.get(variable) for tag, variable in self.deployment_tags.items()}
        tags = {**deployment, **self.tags}
        return {tag: text for tag, value in tags.items() if (text := clean_text(value, MAX_TAG_VALUE))}

    @functools.cached_property
    def trace_tag_items(self) -> tuple[tuple[str, str], ...]:
        """The same."""
        return tuple(self.trace_tags.items())

    @functools.cached_property
    def identity_headers(self) -> tuple[str, str, str]:
        """The names of the headers with the request, session and user id, lower-case."""
        return self.request_id_header.lower(), self.session_id_header.lower(), self.user_id_header.lower()

    @functools.cached_property
    def redactor(self) -> Redactor:
        """What knows the keys of `redact`."""
        return Redactor(self.redact)

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
        """Bytes that are kept of a request's and of its response's body."""
        if self._metadata_only is not None and self._metadata_only.fullmatch(path):
            return 0, 0
        limit = self.max_body_bytes
        return (limit if self.capture_request_body else 0), (limit if self.capture_response_body else 0)

    @functools.cached_property
    def _excluded(self) -> re.Pattern[str] | None:
        return _globs(self.exclude)

    @functools.cached_property
    def _metadata_only(self) -> re.Pattern[str] | None:
        return _globs(self.metadata_only)


def _globs(globs: Iterable[str]) -> re.Pattern[str] | None:
    patterns = "|".join(map(fnmatch.translate, globs))
    return re.compile(patterns) if patterns else None


def _environment_options() -> list[str]:
    return [name[len(ENV_PREFIX) :].lower() for name in os.environ if name.upper().startswith(ENV_PREFIX)]


def _from_environment(name: str) -> str:
    return f" (from {ENV_PREFIX}{name.upper()})"


def _unknown(name: str, cls: type[Settings]) -> str:
    import difflib  # 5 ms that only a mistake has to pay

    close = difflib.get_close_matches(name, cls.model_fields, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "there are: " + ", ".join(cls.model_fields)
    return f"unknown option {name!r} ({hint})"


def _ill_typed(detail: dict[str, Any], given: Mapping[str, object]) -> str:
    name, *inside = (str(part) for part in detail["loc"]) if detail["loc"] else ("settings",)
    place = f"{name}[{', '.join(inside)}]" if inside else name
    source = "" if name in given else _from_environment(name)
    value = "" if "hmac" in name or "secret" in name else f", not {_short(detail.get('input'))}"
    return f"option {place!r}{source}: {detail['msg'][:1].lower()}{detail['msg'][1:]}{value}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
