"""``keep="genai"``: bodies of a model's or an agent's traffic, and similar bodies of other APIs.

The bodies follow the documentation of each provider.
"""

from __future__ import annotations

from typing import Any

import pytest

from mlflow_middleware.capture.genai import is_model_traffic

AUDIO = {"filename": "call.mp3", "content_type": "audio/mpeg", "size": 48_000}
TEXT_PART = {"kind": "text", "text": "Book a table"}


def rpc(method: str, **params: Any) -> dict[str, Any]:
    """Return a JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def result(**values: Any) -> dict[str, Any]:
    """Return a JSON-RPC response."""
    return {"jsonrpc": "2.0", "id": 1, "result": values}


REQUESTS: dict[str, Any] = {
    "openai chat": {"model": "gpt-5", "messages": [{"role": "developer", "content": "Be brief."}]},
    "openai responses": {"model": "gpt-5", "input": "Why?", "stream": True},
    "openai completions": {"model": "babbage-002", "prompt": ["Once", "Twice"], "max_tokens": 5},
    "openai embeddings": {"model": "text-embedding-3-small", "input": [[15339, 1917]]},
    "openai transcription": {"model": "whisper-1", "file": AUDIO, "response_format": "json"},
    "openai translation": {"model": "whisper-1", "file": {**AUDIO, "content_type": "application/octet-stream"}},
    "openai speech": {"model": "gpt-4o-mini-tts", "input": "Good morning.", "voice": "alloy"},
    "openai images": {"model": "gpt-image-1", "prompt": "A lighthouse", "size": "1024x1024"},
    "openai image edits": {"prompt": "Add a boat", "image": {"filename": "a.png", "content_type": "image/png"}},
    "openai moderations": {"model": "omni-moderation-latest", "input": [{"type": "text", "text": "I am angry."}]},
    "openai assistants message": {"role": "user", "content": "How does AI work?"},
    "openai assistants thread": {"messages": [{"role": "user", "content": "Hello"}]},
    "openai assistants run": {"assistant_id": "asst_abc123"},
    "openai realtime secret": {"session": {"type": "realtime", "model": "gpt-realtime"}},
    "openai realtime session": {"model": "gpt-4o-realtime-preview", "modalities": ["audio", "text"]},
    "anthropic": {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": []}]},
    "gemini": {"contents": [{"parts": [{"text": "Why?"}]}], "generationConfig": {"temperature": 0}},
    "gemini image": {
        "contents": [{"role": "user", "parts": [{"inline_data": {"mime_type": "image/png", "data": ""}}]}]
    },
    "gemini batch of embeddings": {"requests": [{"content": {"parts": [{"text": "Why?"}]}}]},
    "vertex text": {"instances": [{"prompt": "Why?"}], "parameters": {"temperature": 0.2}},
    "vertex chat": {"instances": [{"context": "", "messages": [{"author": "user", "content": "Why?"}]}]},
    "vertex embeddings": {"instances": [{"task_type": "RETRIEVAL_QUERY", "content": "Why?"}]},
    "bedrock converse": {"messages": [{"role": "user", "content": [{"text": "Why?"}]}], "inferenceConfig": {}},
    "bedrock titan": {"inputText": "Why?", "textGenerationConfig": {"maxTokenCount": 9}},
    "bedrock llama": {"prompt": "<|begin_of_text|>Why?", "max_gen_len": 512},
    "bedrock stability": {"text_prompts": [{"text": "A lighthouse"}], "cfg_scale": 10},
    "bedrock titan image": {"taskType": "TEXT_IMAGE", "textToImageParams": {"text": "A lighthouse"}},
    "cohere chat": {"message": "Why?", "chat_history": [{"role": "USER", "message": "Hi"}], "model": "command-r"},
    "cohere chat 2": {"model": "command-a-03-2025", "messages": [{"role": "user", "content": "Why?"}]},
    "cohere embeddings": {"model": "embed-v4.0", "texts": ["Why?"], "input_type": "search_query"},
    "cohere rerank": {"model": "rerank-v3.5", "query": "Why?", "documents": ["So.", "Not so."], "top_n": 1},
    "tgi": {"inputs": "Why?", "parameters": {"max_new_tokens": 20, "details": True}},
    "ollama generate": {"model": "gemma3", "prompt": "Why?", "stream": False},
    "ollama chat": {"model": "gemma3", "messages": [{"role": "user", "content": "Why?"}]},
    "a2a": rpc("message/send", message={"role": "user", "parts": [TEXT_PART], "messageId": "m-1"}),
    "a2a stream": rpc("message/stream", message={"role": "user", "parts": [{"kind": "file"}], "messageId": "m-1"}),
    "a2a tasks": rpc("tasks/get", id="t-1", historyLength=10),
    "a2a over http": {"message": {"role": "ROLE_USER", "parts": [{"text": "Book a table"}], "messageId": "m-1"}},
    "mcp": rpc("tools/call", name="get_weather", arguments={"city": "Lisbon"}),
    "mcp batch": [rpc("tools/list"), rpc("tools/call", name="get_weather", arguments={})],
    "mcp sampling": rpc("sampling/createMessage", messages=[], maxTokens=100),
    "ag-ui": {"threadId": "t-1", "runId": "r-1", "messages": [], "tools": [], "state": {}, "context": []},
    "vercel": {"id": "c-1", "messages": [{"id": "m-1", "role": "user", "parts": [{"type": "text", "text": "Why?"}]}]},
    "vercel last message": {"id": "c-1", "message": {"role": "user", "parts": [{"type": "text", "text": "Why?"}]}},
    "dify chat": {"inputs": {}, "query": "Why?", "response_mode": "streaming", "user": "abc-123"},
    "dify workflow": {"inputs": {"topic": "tea"}, "response_mode": "blocking", "user": "abc-123"},
    "langserve": {"input": {"topic": "cats"}, "config": {}, "kwargs": {}},
    "langserve chat": {"input": {"messages": [{"type": "human", "content": "Why?"}]}},
    "langgraph": {"assistant_id": "agent", "input": {"question": "Why?"}, "stream_mode": ["values"]},
    "mlflow's model server": {"inputs": {"messages": [{"role": "user", "content": "Why?"}]}},
    "openai conversations": {"items": [{"type": "message", "role": "user", "content": "Why?"}]},
    "anthropic batch": {
        "requests": [{"custom_id": "1", "params": {"messages": [{"role": "user", "content": "Why?"}]}}]
    },
    "adk": {"appName": "a", "sessionId": "s-1", "newMessage": {"role": "user", "parts": [{"text": "Why?"}]}},
    "coze": {"bot_id": "7", "additional_messages": [{"role": "user", "content": "Why?", "content_type": "text"}]},
    "replicate": {"version": "5c7d", "input": {"prompt": "A lighthouse"}},
    "watsonx": {"model_id": "ibm/granite-3-8b-instruct", "input": "Why?", "project_id": "p-1"},
    "triton": {"text_input": "Why?", "parameters": {"stream": False}},
    "tei rerank": {"query": "Why?", "texts": ["So.", "Not so."]},
    "a late part": {"messages": [{"parts": [{"kind": "data"}, {"kind": "file"}, {"kind": "text", "text": "Why?"}]}]},
    "cut prompt": '{"model": "gemma3", "prompt": "Why',
    "cut gemini": '{"contents": [{"parts": [{"text": "Why',
    "cut": '{"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "get_wea',
}

ANSWERS: dict[str, Any] = {
    "openai chat": {"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant"}}]},
    "openai chat, pieces": [{"choices": [{"index": 0, "delta": {"content": "So."}}]}],
    "openai completions": {"choices": [{"text": "So.", "index": 0, "finish_reason": "stop"}]},
    "openai responses": {"id": "resp_1", "object": "response", "output": []},
    "openai embeddings": {"object": "list", "data": [{"object": "embedding", "embedding": "AACAPw=="}]},
    "openai transcription": {"task": "transcribe", "language": "english", "duration": 8.4, "text": "The beach"},
    "openai transcription, pieces": [{"type": "transcript.text.delta", "delta": "The"}],
    "openai images": {"created": 1713833628, "data": [{"b64_json": "iVBORw0KGgo="}]},
    "openai moderations": {"id": "modr-1", "results": [{"flagged": True, "categories": {"violence": True}}]},
    "openai thread": {"id": "thread_abc123", "object": "thread", "created_at": 1699012949, "metadata": {}},
    "openai run": {"id": "run_abc123", "object": "thread.run", "status": "queued"},
    "openai run, events": [{"event": "thread.run.created", "data": {"id": "run_1", "object": "thread.run"}}],
    "openai realtime": {"id": "sess_001", "object": "realtime.session", "modalities": ["audio"]},
    "anthropic": {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "So."}]},
    "gemini": {"candidates": [{"content": {"role": "model", "parts": [{"text": "So."}]}, "index": 0}]},
    "vertex chat": {"predictions": [{"candidates": [{"author": "1", "content": "So."}], "safetyAttributes": []}]},
    "vertex embeddings": {"predictions": [{"embeddings": {"values": [0.1], "statistics": {"token_count": 6}}}]},
    "bedrock converse": {"output": {"message": {"role": "assistant", "content": [{"text": "So."}]}}},
    "bedrock titan": {"inputTextTokenCount": 5, "results": [{"tokenCount": 2, "outputText": "So."}]},
    "bedrock titan embeddings": {"embedding": [0.1, 0], "inputTextTokenCount": 8},
    "bedrock llama": {"generation": "So.", "prompt_token_count": 5, "stop_reason": "stop"},
    "bedrock mistral": {"outputs": [{"text": "So.", "stop_reason": "stop"}]},
    "cohere chat": {"text": "So.", "generation_id": "7b2d", "finish_reason": "COMPLETE"},
    "cohere chat, pieces": [{"is_finished": False, "event_type": "text-generation", "text": "So."}],
    "cohere chat 2": {"id": "c-1", "message": {"role": "assistant", "content": [{"type": "text", "text": "So."}]}},
    "cohere chat 2, pieces": [{"type": "content-delta", "index": 0, "delta": {"message": {}}}],
    "cohere embeddings": {"id": "e-1", "embeddings": {"float": [[0.1, 0.2]]}, "texts": ["Why?"]},
    "cohere rerank": {"results": [{"index": 3, "relevance_score": 0.99}], "id": "r-1"},
    "tgi": [{"generated_text": "So."}],
    "tgi, pieces": [{"token": {"id": 7, "text": "So", "logprob": -0.1, "special": False}, "generated_text": None}],
    "ollama generate": {"model": "gemma3", "response": "So.", "done": True},
    "ollama chat": {"model": "gemma3", "message": {"role": "assistant", "content": "So."}, "done": True},
    "a2a": result(kind="task", id="t-1", status={"state": "completed"}, artifacts=[]),
    "a2a, pieces": [result(kind="status-update", taskId="t-1", final=False)],
    "mcp": result(content=[{"type": "text", "text": "Sunny"}], isError=False),
    "adk": [{"content": {"role": "model", "parts": [{"functionCall": {"name": "look"}}]}, "invocationId": "e-1"}],
    "watsonx": {"model_id": "ibm/granite", "results": [{"generated_text": "So.", "stop_reason": "eos_token"}]},
    "vercel": {"role": "assistant", "parts": [{"type": "text", "text": "So."}]},
    "dify": {"event": "message", "conversation_id": "c-1", "mode": "chat", "answer": "So."},
    "langserve": {"output": {"content": "So."}, "metadata": {"run_id": "r-1", "feedback_tokens": []}},
}

TWINS: dict[str, Any] = {
    "orders": {"items": [{"sku": "A-1", "quantity": 2}], "total": 12.5, "model": "standard"},
    "a mailbox": {"messages": [{"id": "m-1", "from": "jane", "subject": "Hi", "body": {"content": "Hello"}}]},
    "a mailbox's threads": {"object": "thread", "id": "18b2", "messages": ["m-1"], "subject": "Hi"},
    "a chat among people": {"messages": [{"type": "message", "user": "U1", "text": "Hello", "ts": "1"}]},
    "a mail with parts": {"payload": {"parts": [{"mimeType": "text/plain", "body": {"size": 3}}]}},
    "a parcel": {"contents": [{"description": "Books", "parts": [{"name": "Volume 1"}]}], "weight": 2},
    "a form": {"inputs": [{"name": "email", "type": "text"}], "parameters": {"locale": "en"}},
    "a job": {"inputs": "s3://bucket/a.csv", "parameters": {"delimiter": ";"}},
    "a car": {"model": "Golf", "parts": [{"text": "Brake", "price": 30}], "year": 2020},
    "a car's photo": {"model": "Golf", "file": {"filename": "golf.jpg", "content_type": "image/jpeg", "size": 1}},
    "machines": {"instances": [{"id": "i-1", "type": "t3.micro", "state": "running"}]},
    "a forecast": {"predictions": [{"day": "Monday", "temperature": 21.5}]},
    "rows to classify": {"instances": [[5.1, 3.5], [6.2, 2.9]], "signature_name": "serving_default"},
    "scores": {"predictions": [0.1, 0.9]},
    "users": {"users": [{"role": "user", "name": "jane"}], "role": "admin"},
    "a page": {"role": "admin", "content": "page"},
    "a contact form": {"message": "Is it still available?", "name": "Jane", "model": "Golf"},
    "a search": {"query": "invoice", "documents": [{"id": 1}], "page": 1},
    "hits": {"results": [{"id": 1, "score": 0.9, "title": "Invoice"}]},
    "a quiz": {"question": "Capital?", "choices": [{"id": 1, "text": "Lisbon"}], "answer": "Lisbon"},
    "an election": {"candidates": [{"name": "Jane", "content": "A programme"}]},
    "pictures": {"data": [{"id": 1, "url": "https://shop.example/1.png"}], "created": 1713833628},
    "a payment": {"object": "charge", "id": "ch_1", "amount": 100},
    "a session": {"session": {"id": "s-1", "type": "web"}, "type": "session.created"},
    "a task": {"kind": "task", "id": "t-1", "status": {"state": "done"}},
    "a robot's call": rpc("eth_getBalance", address="0x0"),
    "an editor's call": rpc("textDocument/hover", position={"line": 1}),
    "a robot's result": result(balance="0x1", kind="account"),
    "a converter": {"input": {"unit": "km", "value": 3}, "output": "miles"},
    "a build": {"input": "main.c", "config": {"level": 2}, "output": "main.o", "metadata": {"size": 3}},
    "an issue": {"assistant_id": "7", "issue": "broken lamp"},
    "a word list": {"texts": ["a", "b"], "generation_id": 3, "text": "a"},
    "a token": {"token": {"text": "abc", "expires": 3}, "event_type": "login", "type": "delta"},
    "a poll": {"answer": "yes", "question_id": 3},
    "a map": {"embedding": "iframe", "embeddings": ["map"], "generation": "second"},
    "coordinates": [[1.0, 2.0], [3.0, 4.0]],
    "a cart": {"items": [{"role": "gift", "content": "Book"}], "new_message": "For Jane"},
    "a batch": {"requests": [{"method": "GET", "params": {"messages": 3}}], "text_input": {"id": 3}},
    "a dialog": {"input": {"prompt": {"id": 3}}, "model_id": 3, "query": "x", "texts": [{"de": "Ja"}]},
    "blocks": {"content": [{"role": "heading", "text": "Why?"}], "results": [{"generated": 3}]},
    "a long name": {"model": "Golf", "file": {"filename": 300 * "." + "mp3"}},
    "a list": [{"id": 1, "text": "milk"}, {"id": 2, "text": "bread"}],
    "events": [{"event": "price", "data": {"symbol": "ACME", "value": 3}}],
    "text": "role: user",
    "cut rows": '{"items": [{"text": "prompt", "parts": [{"name": "Vol',
}


@pytest.mark.parametrize("sent", REQUESTS.values(), ids=REQUESTS)
def test_a_request_is_recognized(sent: Any) -> None:
    """The response does not matter: it may be audio, or empty."""
    assert is_model_traffic(sent, None)


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_response_is_recognized(answer: Any) -> None:
    """The request does not matter: it may have the app's own format."""
    assert is_model_traffic({"question": "Why?"}, answer)


@pytest.mark.parametrize("value", TWINS.values(), ids=TWINS)
def test_similar_bodies_are_not(value: Any) -> None:
    """Bodies of ordinary APIs with the same keys, as a request and as a response."""
    assert not is_model_traffic(value, value)


class Counted(dict[str, Any]):
    """An object that counts how often its keys are examined."""

    looks = 0

    def keys(self) -> Any:
        Counted.looks += 1
        return super().keys()


def test_a_hostile_body_costs_no_more_than_others() -> None:
    """Lists in lists in lists, each of them almost a chat."""
    Counted.looks = 0
    parts = {"parts": [Counted()] * 20}
    chats = Counted({key: [Counted(parts)] * 20 for key in ("messages", "input", "contents")})

    assert not is_model_traffic([chats] * 20, None)
    assert Counted.looks < 10_000
