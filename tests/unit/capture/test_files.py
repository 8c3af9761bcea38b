"""Files in JSON: attached if they are complete, left out of a body that is too large."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_middleware.capture.attachments import without_files
from mlflow_middleware.capture.body import Body
from mlflow_middleware.capture.long_runs import SHORTEST, LongRuns
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.request.following import follow_request

IMAGE = random.Random(1).randbytes(3000)
TEXT = base64.b64encode(IMAGE).decode()
LIMIT = 65536

FILES: list[tuple[Any, str]] = [
    ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{TEXT}"}}, "image/png"),
    ({"type": "input_image", "image_url": f"data:image/jpeg;base64,{TEXT}"}, "image/jpeg"),
    ({"type": "input_audio", "input_audio": {"data": TEXT, "format": "mp3"}}, "audio/mpeg"),
    (
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{TEXT}"}},
        "application/pdf",
    ),
    ({"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": TEXT}}, "image/webp"),
    ({"inlineData": {"mimeType": "image/png", "data": TEXT}}, "image/png"),
    ({"inline_data": {"mime_type": "image/png", "data": TEXT}}, "image/png"),
    ({"data": [{"b64_json": TEXT}]}, "image/png"),
    ({"message": {"audio": {"id": "a", "data": TEXT}}}, "audio/wav"),
    ({"image": {"format": "webp", "source": {"bytes": TEXT}}}, "image/webp"),
    ({"type": "image_generation_call", "result": TEXT, "output_format": "jpeg"}, "image/jpeg"),
]


@pytest.mark.parametrize(("part", "kind"), FILES)
def test_a_file_is_attached(part: Any, kind: str) -> None:
    """In the messages of each provider; everything else is kept."""
    attached: list[tuple[str, bytes]] = []

    def attach(content_type: str, content: bytes) -> str:
        attached.append((content_type, content))
        return "reference"

    value = {"messages": [{"content": [{"type": "text", "text": "What?"}, part]}]}
    found = without_files(value, attach)

    assert attached == [(kind, IMAGE)]
    expected = json.dumps(value).replace(f"data:{kind};base64,{TEXT}", TEXT).replace(TEXT, "reference")
    assert json.dumps(found) == expected


@pytest.mark.parametrize(
    "value",
    [
        "data:",
        "data:image/png;base64,",
        "data:image/png;base64,?",
        {"source": {"type": "url", "data": "x"}},
        {"audio": {}},
    ],
)
def test_other_values_are_kept(value: Any) -> None:
    """The result is the same object."""
    assert without_files(value, lambda *_: "reference") is value


def followed(data: bytes, size: int, limit: int = LIMIT) -> Body:
    """Return the content of a request's body that arrived in pieces."""
    exchange, body = Exchange("POST", "/", {"content-type": "application/json"}), Body(limit)
    for start in range(0, len(data), size):
        if body.add(data[start : start + size]):
            follow_request(exchange, body)
    return body


@pytest.mark.parametrize("size", [1, 1000, 10_000_000])
@pytest.mark.parametrize("slash", ["/", "\\/"])
def test_text_around_files_is_kept(size: int, slash: str) -> None:
    """With any chunk boundaries, also in JSON inside JSON, and as PHP writes it."""
    text = base64.b64encode(random.Random(2).randbytes(90_000)).decode()
    inner = json.dumps({"image": text, "after": 1})
    value = {"first": "a", "image": text, "middle": "b", "arguments": inner, "last": ["c", text]}
    body = followed(json.dumps(value).replace("/", slash).encode(), size)

    assert isinstance(body.follower, LongRuns)
    found = json.loads(body.follower.kept)
    assert (found["first"], found["middle"], found["last"][0]) == ("a", "b", "c")
    assert json.loads(found["arguments"])["after"] == 1
    assert "characters of base64 left out" in found["image"]
    assert body.held < 5000


def test_long_text_is_no_file() -> None:
    """Words without blanks between them, a text of one letter, another script."""
    for text in ("x" * 100_000, "word-" * 20_000, "茶" * 50_000):
        data = json.dumps({"content": text}, ensure_ascii=False).encode()
        body = followed(data, 1000)
        assert isinstance(body.follower, LongRuns)
        assert body.follower.kept == data[:LIMIT]


pieces = st.lists(
    st.sampled_from(["x" * 1500, "a b ", '"', "\\", "\\/", TEXT[: SHORTEST - 1], TEXT[:SHORTEST], TEXT, "é"]),
    max_size=12,
)


@given(pieces, st.integers(1, 4000))
def test_chunk_boundaries_of_a_body_do_not_matter(parts: list[str], size: int) -> None:
    """Whatever it contains; and a short body is verbatim."""
    data = "".join(parts).encode()
    whole = LongRuns(data, LIMIT, None)
    cut = LongRuns(data[:size], LIMIT, None)
    for start in range(size, len(data), size):
        cut.add(data[start : start + size])

    assert cut.kept == whole.kept
    if len(data) < SHORTEST:
        assert whole.kept == data
