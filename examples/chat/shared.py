"""The parts that the three chat apps share: the retriever, the model, the page, and the link to an answer's trace.

The model is local and deterministic. If ``OPENAI_BASE_URL`` is set, the model at that address is called with the
``openai`` client and traced by ``mlflow.openai.autolog()``; ``OPENAI_MODEL`` names the model.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import mlflow
from mlflow.entities import SpanType

from mlflow_middleware import traces

Message = dict[str, str]
Chunk = dict[str, Any]
"""A chunk of a streamed answer, in OpenAI's format."""

Chunks = Generator[Chunk, None, None]
"""Closed when the client stops the answer, so that the model's span ends."""

PACE = float(os.environ.get("CHAT_PACE", "0.06"))
"""Seconds between two words of the local model's streamed answer: slow enough to read along and to stop it."""

NOT_TRACED = ("default", "/", "/traces/*")
"""For the middleware's option ``exclude``: the page itself, and the links to traces."""

NOTES: Final = {
    "oslo": "In Oslo, days in May are mild and evenings are cool: pack layers and a warm sweater.",
    "rain": "If it rains, take waterproof shoes and spend the day in a museum; the ones at Bygdøy are close together.",
    "builds": "When a build fails, read the first error, not the last one: the others often only follow from it.",
    "disks": "A full disk fails builds in odd ways: delete old images and caches first, then build again from clean.",
    "leeks": "Leeks are sweet when they cook slowly in butter; with potatoes and stock they make a good soup.",
    "cream": "Without cream, a cooked potato that is blended into the soup makes it just as smooth.",
}
"""Title and text of every note that the retriever can find."""

COMMON_WORDS = frozenset(["and", "are", "can", "for", "from", "the", "that", "with", "what", "when", "you"])


@mlflow.trace(span_type=SpanType.RETRIEVER)
def retrieve(question: str) -> list[dict[str, Any]]:
    """Find the note that shares the most words with a question, in the format that MLflow shows as documents."""
    asked = _words(question)
    title, text = max(NOTES.items(), key=lambda note: len(asked & _words(" ".join(note))))
    if not asked & _words(f"{title} {text}"):
        return []
    return [{"page_content": text, "metadata": {"doc_uri": f"notes/{title}.md"}, "id": title}]


def _words(text: str) -> set[str]:
    words = re.findall(r"\w{3,}", text.lower())
    return {word.removesuffix("s") for word in words} - COMMON_WORDS


def answer(messages: list[Message], stream: bool) -> Chunks:
    """Look up the topic of the last message, and let the model answer it.

    Call it in the request handler, where its spans find their parent. The chunks may be read anywhere.
    """
    notes = " ".join(document["page_content"] for document in retrieve(messages[-1]["content"]))
    prompt = [{"role": "system", "content": f"Answer briefly. What is known: {notes or 'nothing'}"}, *messages]
    if OPENAI:
        return _ask_openai(prompt)
    return _ask_local_model(prompt, notes, PACE if stream else 0)


def _ask_local_model(prompt: list[Message], notes: str, pace: float) -> Chunks:
    span = mlflow.start_span_no_context(
        "local_model",
        span_type=SpanType.CHAT_MODEL,
        parent_span=mlflow.get_current_active_span(),
        inputs={"messages": prompt},
    )
    text = notes or f"I know nothing of that. Ask me about {', '.join(NOTES)}."

    def speak() -> Chunks:
        said: list[str] = []
        try:
            for word in text.split(" "):
                said.append(word if not said else f" {word}")
                yield _chunk(said[-1])
                time.sleep(pace)
        finally:  # also when the client stops it
            span.end(outputs={"choices": [{"message": {"role": "assistant", "content": "".join(said)}}]})

    return speak()


def _chunk(text: str) -> Chunk:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}


def _openai_client() -> Any:
    import openai

    mlflow.openai.autolog()
    return openai.OpenAI()


OPENAI: Final[Any] = _openai_client() if "OPENAI_BASE_URL" in os.environ else None
"""The client for the endpoint, if one is configured."""


def _ask_openai(prompt: list[Message]) -> Chunks:
    model = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
    stream = OPENAI.chat.completions.create(model=model, messages=prompt, stream=True)

    def speak() -> Chunks:
        with stream:
            yield from (chunk.model_dump(exclude_unset=True) for chunk in stream)

    return speak()


def events(chunks: Chunks) -> Iterator[str]:
    """Format chunks as server-sent events."""
    with closing(chunks):
        for chunk in chunks:
            yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


def completion(chunks: Chunks) -> dict[str, Any]:
    """Join chunks into one answer."""
    deltas = (choice["delta"] for chunk in chunks for choice in chunk["choices"])
    text = "".join(delta.get("content") or "" for delta in deltas)
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def page(framework: str) -> str:
    """Return the page, with the name of the framework that serves it."""
    return Path(__file__).with_name("page.html").read_text(encoding="utf-8").replace("{{framework}}", framework)


def trace_page(trace_id: str) -> str:
    """Return the address of a trace in MLflow; that of MLflow's first page if there is no such trace yet."""
    try:
        trace = traces.get(trace_id)
    except (ValueError, traces.ConnectionProblem):
        trace = None
    place = f"{trace.info.experiment_id}/traces?selectedEvaluationId={trace_id}" if trace else ""
    return f"{mlflow.get_tracking_uri()}/#/experiments/{place}"
