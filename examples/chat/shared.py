"""What the three chat apps share: the retriever, the model, the page, and the way to an answer's trace.

The model is a local, deterministic one. With ``OPENAI_BASE_URL`` set it is whatever answers there, asked with the
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
"""A piece of a streamed answer, in the form that OpenAI gave it."""

Chunks = Generator[Chunk, None, None]
"""Closed where the client stops the answer, so that the model's span ends."""

PACE = float(os.environ.get("CHAT_PACE", "0.06"))
"""Seconds between two words of the local model's streamed answer: time to read along, and to stop it."""

NOT_TRACED = ("default", "/", "/traces/*")
"""For the middleware's option ``exclude``: the page itself, and the way from an answer to its trace."""

NOTES: Final = {
    "oslo": "In Oslo, days in May are mild and evenings are cool: pack layers and a warm sweater.",
    "rain": "If it rains, take waterproof shoes and spend the day in a museum; the ones at Bygdøy are close together.",
    "builds": "When a build fails, read the first error, not the last one: the others often only follow from it.",
    "disks": "A full disk fails builds in odd ways: delete old images and caches first, then build again from clean.",
    "leeks": "Leeks are sweet when they cook slowly in butter; with potatoes and stock they make a good soup.",
    "cream": "Without cream, a cooked potato that is blended into the soup makes it just as smooth.",
}
"""Title and text of everything that the retriever can find."""

COMMON_WORDS = frozenset(["and", "are", "can", "for", "from", "the", "that", "with", "what", "when", "you"])


@mlflow.trace(span_type=SpanType.RETRIEVER)
def retrieve(question: str) -> list[dict[str, Any]]:
    """Find the note that shares most words with a question, in the form that MLflow shows as documents."""
    asked = _words(question)
    title, text = max(NOTES.items(), key=lambda note: len(asked & _words(" ".join(note))))
    if not asked & _words(f"{title} {text}"):
        return []
    return [{"page_content": text, "metadata": {"doc_uri": f"notes/{title}.md"}, "id": title}]


def _words(text: str) -> set[str]:
    words = re.findall(r"\w{3,}", text.lower())
    return {word.removesuffix("s") for word in words} - COMMON_WORDS


def answer(messages: list[Message], stream: bool) -> Chunks:
    """Look up what the last message asks about, and have the model answer it.

    Call it where the request is handled: that is where the spans find their parent. The chunks can come anywhere.
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
"""What asks the endpoint, if one is named."""


def _ask_openai(prompt: list[Message]) -> Chunks:
    model = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
    stream = OPENAI.chat.completions.create(model=model, messages=prompt, stream=True)

    def speak() -> Chunks:
        with stream:
            yield from (chunk.model_dump(exclude_unset=True) for chunk in stream)

    return speak()


def events(chunks: Chunks) -> Iterator[str]:
    """Chunks as server-sent events."""
    with closing(chunks):
        for chunk in chunks:
            yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


def completion(chunks: Chunks) -> dict[str, Any]:
    """Chunks as one answer."""
    deltas = (choice["delta"] for chunk in chunks for choice in chunk["choices"])
    text = "".join(delta.get("content") or "" for delta in deltas)
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def page(framework: str) -> str:
    """The page, with the name of what serves it."""
    return Path(__file__).with_name("page.html").read_text(encoding="utf-8").replace("{{framework}}", framework)


def trace_page(trace_id: str) -> str:
    """Where MLflow shows a trace; its first page if there is none of that id yet."""
    try:
        trace = traces.get(trace_id)
    except (ValueError, traces.ConnectionProblem):
        trace = None
    place = f"{trace.info.experiment_id}/traces?selectedEvaluationId={trace_id}" if trace else ""
    return f"{mlflow.get_tracking_uri()}/#/experiments/{place}"
