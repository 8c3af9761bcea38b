"""The contents of requests and answers, each with a mark that is searched for in the data that arrives."""

from __future__ import annotations

from typing import Any

SESSION, USER, REQUEST_ID = "conversation-of-the-header", "user-of-the-header", "request-id-of-the-header"
CONVERSATION = "conversation-of-the-body"
HEADER_SECRET, PLAIN_HEADER, BODY_SECRET = "header-Zx81-hidden", "header-plain-value", "body-Zx82-hidden"
QUESTION, ANSWER = "question-mark-one", "answer-mark-one"
MODEL = "gpt-4o-mini"
TOKENS = {"prompt_tokens": 1201, "completion_tokens": 302, "total_tokens": 1503}
WORDS = ["alpha ", "beta ", "gamma ", "delta ", "epsilon ", "zeta ", "eta ", "theta "]
CALLER = "0af7651916cd43dd8448eb211c80319c"

HEADERS = {
    "X-Session-ID": SESSION,
    "X-User-ID": USER,
    "X-Request-ID": REQUEST_ID,
    "X-Plain": PLAIN_HEADER,
    "Authorization": f"Bearer {HEADER_SECRET}",
}
BODY: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": QUESTION}],
    "password": BODY_SECRET,
}


def answer_to(body: dict[str, Any]) -> dict[str, Any]:
    """The model's answer."""
    message = {"role": "assistant", "content": ANSWER}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": TOKENS,
    }
