"""The questions about the data that arrived, the same for each tool, answered by code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.comparison import contents
from tests.comparison.requests_made import Made
from tests.comparison.spans import Span


@dataclass
class Seen:
    """A request that was made, and the spans that started in its time slot."""

    made: Made
    spans: list[Span]

    @property
    def tops(self) -> list[Span]:
        """Return the spans without a parent among those that arrived."""
        ids = {span.id for span in self.spans}
        return [span for span in self.spans if span.parent not in ids]

    @property
    def roots(self) -> list[Span]:
        """Return the tops that stand for the request, not for a part of it that lost its parent."""
        return [span for span in self.tops if span.name not in NOT_ROOTS]

    @property
    def text(self) -> str:
        return "\n".join(span.text for span in self.spans)

    def named(self, name: str) -> Span | None:
        return next((span for span in self.spans if span.name == name), None)


NOT_ROOTS = {"look-up", "in-pool", "afterwards", "job", "in-job"}
"""Return the spans of the app that belong to no request."""

Run = Mapping[str, Seen]
Answer = bool | None
"""Return None if the question makes no sense: nothing was stored that could contain a secret."""


def _has(span: Span, key: str, value: object) -> bool:
    return any(re.search(key, name, re.IGNORECASE) and _same(each, value) for name, each in span.known.items())


def _same(stored: object, value: object) -> bool:
    return str(stored).strip('"') == str(value) or (isinstance(value, int) and stored == float(value))


def _any(seen: Seen, key: str, value: object) -> bool:
    """Return whether the request's values, apart from contents, include this one under such a key."""
    return any(_has(span, key, value) for span in _request_spans(seen))


def _request_spans(seen: Seen) -> list[Span]:
    return [span for span in seen.spans if span.name not in NOT_ROOTS]


def _has_content(seen: Seen, words: str) -> bool:
    return any(words in span.text for span in _request_spans(seen))


def _folded(seen: Seen, words: list[str]) -> bool:
    return _has_content(seen, "".join(words).strip())


def _is_error(seen: Seen, kind: str = "") -> bool:
    return any(span.error is not None and kind in f"{span.error} {span.text}" for span in seen.roots)


def _below(seen: Seen, name: str) -> bool:
    span = seen.named(name)
    return bool(span and seen.roots and span.trace in {root.trace for root in seen.roots} and span.parent)


def _linked(seen: Seen, name: str) -> bool:
    span = seen.named(name)
    traces = {root.trace for root in seen.roots}
    links = {link for each in seen.spans if span and each.trace == span.trace for link in each.links}
    return bool(span and (span.trace in traces or traces & links))


def _job_session(seen: Seen) -> bool:
    names = ("job", "in-job")
    return any(
        _has(span, "session|conversation", contents.SESSION) for span in map(seen.named, names) if span
    ) or _in_trace_with_session(seen)


def _in_trace_with_session(seen: Seen) -> bool:
    span = seen.named("in-job")
    return bool(
        span and any(root.trace == span.trace and _has(root, "session", contents.SESSION) for root in seen.roots)
    )


def _is_priced(seen: Seen) -> bool:
    return any("cost" in name for span in _request_spans(seen) for name in span.known)


def _names_its_trace(seen: Seen) -> bool:
    in_headers = " ".join(seen.made.headers.values()).replace("-", "")
    return any(root.trace.replace("-", "") in in_headers for root in seen.roots)


def _is_without(run: Run, name: str) -> Answer:
    return not run[name].spans if run["chat"].roots else None


def _header_is_hidden(run: Run) -> Answer:
    chat = run["chat"]
    return contents.HEADER_SECRET not in chat.text if contents.PLAIN_HEADER in chat.text else None


def _secret_is_hidden(run: Run) -> Answer:
    chat = run["chat"]
    return contents.BODY_SECRET not in chat.text if _has_content(chat, contents.QUESTION) else None


def _goes_on(run: Run) -> bool:
    callers = (contents.CALLER, contents.CALLER[16:])
    return any(span.trace.replace("-", "") in callers for span in run["called by another service"].spans)


CONVERSATION = "chat with its conversation in the body"
SESSION = "session|conversation"

QUESTIONS: dict[str, dict[str, Callable[[Run], Answer]]] = {
    "What a request's trace holds": {
        "each request is a trace": lambda run: bool(run["chat"].roots),
        "named or tagged with the route's template": lambda run: any(
            "/chats/{chat_id}" in span.text for span in _request_spans(run["chat"])
        ),
        "the question, as it came": lambda run: _has_content(run["chat"], contents.QUESTION),
        "the answer, as it went": lambda run: _has_content(run["chat"], contents.ANSWER),
        "a streamed answer as one text": lambda run: _folded(run["stream"], contents.WORDS),
        "what was streamed until the client left, as one text": lambda run: _folded(
            run["stream that is left"], contents.WORDS[:2]
        ),
        "an exception makes it an error": lambda run: _is_error(run["failure"]),
        "the exception's type": lambda run: _is_error(run["failure"], "ValueError"),
        "a 503 that the route answers makes it an error": lambda run: _is_error(run["503"]),
        "the status of the answer": lambda run: _any(run["chat"], "status", 200),
        "spans of the tool in the route are below it": lambda run: _below(run["chat"], "look-up"),
        "the answer's headers name the trace": lambda run: _names_its_trace(run["chat"]),
    },
    "Whose request": {
        "session id of a header, under a name for it": lambda run: _any(run["chat"], SESSION, contents.SESSION),
        "session id of the body, under a name for it": lambda run: _any(
            run[CONVERSATION], SESSION, contents.CONVERSATION
        ),
        "user id of a header, under a name for it": lambda run: _any(run["chat"], r"user|usr", contents.USER),
        "request id of a header": lambda run: _any(run["chat"], r"request.?id", contents.REQUEST_ID),
    },
    "Secrets": {
        "chosen headers are stored": lambda run: contents.PLAIN_HEADER in run["chat"].text,
        "with headers stored, `Authorization` is not": _header_is_hidden,
        "with the body stored, its `password` is not": _secret_is_hidden,
    },
    "Which requests": {
        "health checks make no trace": lambda run: _is_without(run, "health"),
        "CORS preflights make no trace": lambda run: _is_without(run, "preflight"),
        "paths without a route make no trace": lambda run: _is_without(run, "unrouted"),
        "requests without a model make no trace": lambda run: _is_without(run, "no model"),
    },
    "What it cost": {
        "the model, on the request": lambda run: _any(run["chat"], "model", contents.MODEL),
        "input tokens, on the request": lambda run: _any(run["chat"], "usage|token", contents.TOKENS["prompt_tokens"]),
        "output tokens, on the request": lambda run: _any(
            run["chat"], "usage|token", contents.TOKENS["completion_tokens"]
        ),
        "the cost, on the request": lambda run: _is_priced(run["chat"]),
    },
    "Work beside and after the request": {
        "a span in a thread pool is in the trace": lambda run: _below(run["pool"], "in-pool"),
        "a background task is in the trace, or linked": lambda run: _linked(run["background"], "afterwards"),
        "a later job is in the trace, or linked": lambda run: (
            _linked(run["job"], "in-job") or _linked(run["job"], "job")
        ),
        "a later job has the request's session": lambda run: _job_session(run["job"]),
        "continues the trace of a caller, which reports elsewhere": _goes_on,
    },
}
