"""The body of a feedback request, its limits, and the errors for invalid ones."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from mlflow_middleware.identity import MAX_ID, MAX_REQUEST_ID, clean_request_id, clean_text

MAX_BODY = 64 * 1024
"""Longest body of a feedback request, in bytes."""

MAX_NAME = 100
"""Longest name of feedback, and longest metadata key, in characters."""

MAX_TEXT = 1000
"""Longest text value, and longest metadata value, in characters."""

MAX_COMMENT = 4000
"""Longest comment, in characters."""

MAX_METADATA = 20
"""Maximum number of entries of metadata."""

MAX_NUMBER = 2**53 - 1
"""Largest integer that MLflow stores exactly, as it stores numbers as doubles."""

TRACE_ID = re.compile(r"tr-[0-9a-f]{32}")
"""A trace id of MLflow."""

_RESERVED = "mlflow."
_NAME = r"^[A-Za-z0-9][A-Za-z0-9 _./-]*$"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class FeedbackError(Exception):
    """Error for rejected feedback.

    Attributes:
        status: The HTTP status of the response.
        detail: A message for the client.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def _plain(text: str) -> str:
    """Replace control characters except line ends and tabs, which PostgreSQL rejects or terminals interpret."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n")).strip()


def _request_id(text: str) -> str:
    if clean_request_id(text) is None:
        raise ValueError(f"must be 1 to {MAX_REQUEST_ID} letters, digits or ._:/+=@~-, the first a letter or digit")
    return text


def _session_id(text: str) -> str:
    if clean_text(text) != text:
        raise ValueError(f"must be 1 to {MAX_ID} printable characters")
    if "'" in text and '"' in text:
        raise ValueError("must not contain both kinds of quotes: MLflow cannot search for that")
    return text


def _not_reserved(name: str) -> str:
    if name.lower().startswith(_RESERVED):
        raise ValueError(f"must not start with {_RESERVED}, which is reserved for MLflow")
    return name


Name = Annotated[StrictStr, Field(min_length=1, max_length=MAX_NAME, pattern=_NAME), AfterValidator(_not_reserved)]
Text = Annotated[StrictStr, Field(max_length=MAX_TEXT), AfterValidator(_plain)]
Comment = Annotated[StrictStr, Field(max_length=MAX_COMMENT), AfterValidator(_plain)]
Integer = Annotated[StrictInt, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e308, le=1e308)]
TraceId = Annotated[StrictStr, Field(pattern=f"^{TRACE_ID.pattern}$")]
RequestId = Annotated[StrictStr, Field(min_length=1, max_length=MAX_REQUEST_ID), AfterValidator(_request_id)]
SessionId = Annotated[StrictStr, Field(min_length=1, max_length=MAX_ID), AfterValidator(_session_id)]


class Feedback(BaseModel):
    """A user's feedback on a response or on a whole session."""

    model_config = ConfigDict(extra="forbid", title="Feedback")

    trace_id: TraceId | None = Field(None, description="The trace, from the response header X-MLflow-Trace-ID.")
    client_request_id: RequestId | None = Field(None, description="Instead of trace_id: the request id.")
    session_id: SessionId | None = Field(None, description="Instead of trace_id: the session, to rate all of it.")
    value: StrictBool | Integer | Number | Text = Field(description="True or false, a number, or text.")
    name: Name = Field("response_is_correct", description="What is rated.")
    comment: Comment | None = Field(None, description="The reason.")
    metadata: dict[Name, Text] = Field({}, max_length=MAX_METADATA, description="More facts, as text.")

    @model_validator(mode="after")
    def _one_target(self) -> Feedback:
        given = [self.trace_id, self.client_request_id, self.session_id]
        if sum(each is not None for each in given) != 1:
            raise ValueError("give exactly one of trace_id, client_request_id and session_id")
        return self


def described(error: ValidationError) -> str:
    """Describe the problems of invalid feedback in one line."""
    problems: dict[str, list[str]] = {}
    for each in error.errors(include_url=False, include_input=False, include_context=False):
        place = ".".join(str(part) for part in each["loc"][: 2 if each["loc"][:1] == ("metadata",) else 1])
        problems.setdefault(place, []).append(each["msg"].removeprefix("Value error, "))
    return "; ".join(
        f"{place}: {' or '.join(dict.fromkeys(texts))}" if place else texts[0] for place, texts in problems.items()
    )[:MAX_TEXT]
