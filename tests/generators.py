"""Hypothesis strategies: documents with a secret in them, bodies that contain these, and streams in pieces.

The tests of `capture` use single strategies, the fuzzer (`tests.fuzz`) uses all of them.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, quote_plus

from hypothesis import strategies as st

from tests.secrets import CASES, STARTS

MARKER = "XQZJ9KWVMARKER"
"""The secret of all documents."""

PLAIN_KEYS = ["password", "apiKey", "x-token", "Authorization", "openai_api_key", "clientSecret"]
"""Keys that each mark a secret, in spellings that need no escape."""

secret = st.sampled_from(PLAIN_KEYS).flatmap(
    lambda key: st.sampled_from([{key: MARKER}, {key: [MARKER]}, {"n": 1, key: {"deep": '"' + MARKER}}])
)
documents: st.SearchStrategy[Any] = st.recursive(
    secret,
    lambda inner: (
        inner.map(lambda each: {"a": [1, each], "b": "x"})
        | inner.map(lambda each: [each])
        | inner.map(lambda each: {"arguments": json.dumps(each)})
    ),
    max_leaves=5,
)
"""JSON with a secret at some depth, also in JSON inside strings."""

junk = st.text("{}[]\",:'=&;% \n\r\t-\\xà茶\ud83d\udca7", max_size=12)
"""Text that breaks JSON, forms and lines."""


@st.composite
def json_texts(draw: st.DrawFn) -> str:
    """Return a document as JSON, written in any way."""
    document = draw(documents)
    return json.dumps(
        document, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 0, 2])), sort_keys=True
    )


@dataclass(frozen=True)
class Sample:
    """One body.

    Attributes:
        data: Its bytes.
        content_type: Its header.
        encoding: Its ``Content-Encoding``.
        limit: The number of its bytes that may be kept.
        is_secret: Whether `MARKER` occurs only where a trace must not show it; otherwise it may be anywhere.
        query: The query string beside it.
    """

    data: bytes
    content_type: str
    encoding: str = ""
    limit: int = 65536
    is_secret: bool = True
    query: str = ""

    def __repr__(self) -> str:
        shown = repr(self.data) if len(self.data) < 5000 else f"{self.data[:5000]!r} … {len(self.data)} bytes"
        how = f"limit={self.limit}, is_secret={self.is_secret}, query={self.query!r}"
        return f"Sample({shown}, {self.content_type!r}, {self.encoding!r}, {how})"


# --- bodies by their media type --------------------------------------------------------------------------------

UNICODE = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]
CHARSETS = [
    "",
    "utf-8",
    "UTF-16",
    "utf-32-be",
    "latin-1",
    "ascii",
    "shift_jis",
    "gb18030",
    "euc-kr",
    "utf-7",
    "hex",
    "x",
]


@st.composite
def content_types(draw: st.DrawFn, *media_types: str) -> str:
    """Return a header with a charset that may be wrong."""
    charset = draw(st.sampled_from(CHARSETS))
    return draw(st.sampled_from(media_types)) + (f"; charset={charset}" if charset else "")


@st.composite
def json_bodies(draw: st.DrawFn) -> Sample:
    """Return a document in any encoding, whole or broken, under a charset that may be wrong."""
    text = draw(json_texts())
    if draw(st.booleans()):
        text = draw(junk) + text + draw(junk)
    data = text.encode(draw(st.sampled_from(UNICODE)), "replace")
    return Sample(data, draw(content_types("application/json", "application/x+json", "")))


@st.composite
def text_bodies(draw: st.DrawFn) -> Sample:
    """Return a document in prose, as a header line, or as a setting."""
    key = draw(st.sampled_from(PLAIN_KEYS))
    secret_line = draw(
        json_texts() | st.sampled_from([f"{key}: {MARKER}", f"{key} = {MARKER}", f"- {key}: '{MARKER}'"])
    )
    data = (draw(junk) + "\n" + secret_line + "\n" + draw(junk)).encode(draw(st.sampled_from(UNICODE)), "replace")
    return Sample(data, draw(content_types("text/plain", "text/markdown", "application/graphql", "")))


@st.composite
def line_bodies(draw: st.DrawFn) -> Sample:
    """Return JSON lines with broken ones among them."""
    lines = draw(st.lists(st.one_of(documents.map(json.dumps), junk), max_size=6))
    ends = st.sampled_from(["\n", "\r\n", "\n\n", "\n\x1e"])
    data = "".join(line + draw(ends) for line in lines).encode(errors="replace")
    return Sample(data, draw(content_types("application/x-ndjson", "application/jsonl", "application/json-seq")))


@st.composite
def form_bodies(draw: st.DrawFn) -> Sample:
    """Return fields that contain documents or have secrets' names; the same as a query string."""
    escape: Callable[[str], str] = draw(st.sampled_from([quote, quote_plus]))
    ordinary = st.tuples(st.sampled_from(["a", "max_tokens", "é"]), st.one_of(json_texts(), junk))
    named = st.tuples(st.sampled_from([*PLAIN_KEYS, "user[password]"]), st.just(MARKER))
    pairs = draw(st.lists(ordinary | named, max_size=6))
    written = [f"{escape(name)}={quote_plus(value, errors='replace')}" for name, value in pairs]
    noise = st.text("&=%+;zé0", max_size=6)
    text = "".join(f"{draw(noise)}&{each}&{draw(noise)}" for each in written)
    return Sample(text.encode(), draw(content_types("application/x-www-form-urlencoded")), query=quote(text, "&=%+;"))


BOUNDARIES = ["b", "----WebKitFormBoundary7MA4YWxk", "a b", "'()+_,-./:=?", "x" * 70, "--", "-", '"', "\\", "é"]


@st.composite
def multipart_bodies(draw: st.DrawFn) -> Sample:
    """Return parts with odd names, line ends and boundaries."""
    boundary = draw(st.sampled_from(BOUNDARIES))
    end = draw(st.sampled_from(["\r\n", "\n"]))
    parts = draw(st.lists(_parts(end), max_size=5))
    closing = draw(st.sampled_from(["--", "", "-- ", "--" + end + "epilogue"]))
    text = draw(st.sampled_from(["", "preamble" + end])) + "".join(f"--{boundary}{end}{part}{end}" for part in parts)
    header = draw(st.sampled_from(['boundary="{}"', "boundary={}", 'Boundary = "{}"; charset=utf-16'])).format(boundary)
    data = f"{text}--{boundary}{closing}{end}".encode(draw(st.sampled_from(["utf-8", "latin-1"])), "replace")
    return Sample(data, f"multipart/form-data; {header}")


@st.composite
def _parts(draw: st.DrawFn, end: str) -> str:
    """Return one part: a document in an ordinary field, a secret in its own, or a file."""
    name = draw(st.sampled_from(["a", "é", 'x"; filename="y', "", "a\\", *PLAIN_KEYS]))
    value = draw(json_texts()) if name not in PLAIN_KEYS else MARKER
    quoted = draw(st.sampled_from(['"{}"', '"{}'] if name in PLAIN_KEYS else ['"{}"', '"{}', "{}", "{};"])).format(name)
    rest = draw(
        st.sampled_from(["", "; filename=f.txt", "; filename*=UTF-8''%e2%82", '; filename="'] if value else [""])
    )
    kind = draw(st.sampled_from(["", f"Content-Type: text/plain{end}", f"X-Other: {'y' * 50}{end}", f": {end}"]))
    return f"{kind}Content-Disposition: form-data; name={quoted}{rest}{end}{end}{value}"


# --- the corpus ------------------------------------------------------------------------------------------------


@st.composite
def corpus_bodies(draw: st.DrawFn) -> Sample:
    """Return a body of the corpus with the fuzzer's secret in it, alone, among others, or as text inside JSON."""
    case = draw(st.sampled_from([case for case in CASES if case.secret == "hunter2"]))
    text = case.leak.replace(case.secret, MARKER)
    if case.type == "application/json":
        value = json.loads(text)
        value = draw(st.sampled_from([value, [1, value], {"a": value}, {"arguments": json.dumps(value)}]))
        return Sample(json.dumps(value, ensure_ascii=draw(st.booleans())).encode(), draw(content_types(case.type)))
    if draw(st.booleans()) and case.type != "application/x-www-form-urlencoded":
        return Sample(json.dumps({"content": text}).encode(), "application/json")
    return Sample(text.encode(), draw(content_types(case.type)))


@st.composite
def endless_bodies(draw: st.DrawFn) -> Sample:
    """Return prefixes of secrets that never end, repeated: each must be looked at once."""
    seed = "".join(draw(st.lists(st.sampled_from(STARTS), min_size=1, max_size=3)))
    text = (seed * (65536 // len(seed) + 1))[:65536]
    text = draw(st.sampled_from([text, json.dumps({"content": text})]))
    return Sample(text.encode(), draw(content_types("text/plain", "application/json")), is_secret=False)


# --- streams ---------------------------------------------------------------------------------------------------


def sse(*pieces: Any) -> bytes:
    """Return server-sent events with this data."""
    return b"".join(f"data: {json.dumps(piece)}\n\n".encode() for piece in pieces) + b"data: [DONE]\n\n"


def chunk(index: Any = 0, **delta: Any) -> dict[str, Any]:
    """Return a chunk of an OpenAI chat completion."""
    return {"object": "chat.completion.chunk", "model": "m", "choices": [{"index": index, "delta": delta}]}


def chat(pieces: list[str]) -> list[Any]:
    """Return text in pieces as an OpenAI chat completion, and again as the arguments of a tool."""
    function = [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
    return [
        chunk(role="assistant"),
        *[chunk(content=piece) for piece in pieces],
        *[chunk(tool_calls=[call]) for call in function],
        {"object": "chat.completion.chunk", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    ]


def responses(pieces: list[str]) -> list[Any]:
    """Return text in pieces as OpenAI's Responses API sends it."""
    item = {"type": "function_call", "id": "f", "name": "f", "arguments": ""}
    kinds = (("response.output_text.delta", "m"), ("response.function_call_arguments.delta", "f"))
    deltas = [{"type": kind, "item_id": key, "delta": piece} for kind, key in kinds for piece in pieces]
    done = {"type": "response.output_item.done", "item": {**item, "arguments": "".join(pieces)}}
    return [{"type": "response.output_item.added", "item": item}, *deltas, done]


def agent(pieces: list[str]) -> list[Any]:
    """Return text in pieces as MLflow's ``ResponsesAgent`` sends it, which identifies items by their ids only."""
    deltas = [{"type": "response.output_text.delta", "item_id": "m", "delta": piece} for piece in pieces]
    text = [{"type": "output_text", "text": "".join(pieces)}]
    message = {"type": "message", "id": "m", "role": "assistant", "content": text}
    result = {"type": "function_call_output", "call_id": "c", "output": "".join(pieces)}
    done = "response.output_item.done"
    return [*deltas, {"type": done, "item": message}, {"type": done, "item": result}, {"custom_outputs": {"n": 1}}]


def anthropic(pieces: list[str]) -> list[Any]:
    """Return text in pieces as an Anthropic message."""
    kinds = ({"type": "text_delta", "key": "text"}, {"type": "input_json_delta", "key": "partial_json"})
    blocks = [{"type": "text", "text": ""}, {"type": "tool_use", "name": "f", "input": {}}]
    found: list[Any] = [{"type": "message_start", "message": {"role": "assistant", "usage": {"input_tokens": 4}}}]
    for index, (kind, block) in enumerate(zip(kinds, blocks, strict=True)):
        found.append({"type": "content_block_start", "index": index, "content_block": block})
        deltas = [{"type": kind["type"], kind["key"]: piece} for piece in pieces]
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [*found, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}]


def unknown(pieces: list[str]) -> list[Any]:
    """Return text in pieces in a format that nobody uses yet."""
    return [{"done": False, "message": {"content": piece}} for piece in pieces]


def bare(pieces: list[str]) -> list[Any]:
    """Return nothing but the pieces."""
    return list(pieces)


STREAMS = [chat, responses, agent, anthropic, unknown, bare]

KEYS = ["type", "choices", "delta", "index", "content", "tool_calls", "function", "item", "usage", "object", "message"]
VALUES = ["chat.completion.chunk", "response.output_text.delta", "message_start", "content_block_delta", "text_delta"]
scalars = st.none() | st.booleans() | st.integers() | st.sampled_from(VALUES)
hostile: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(KEYS), each)
)
"""Unexpected parts of a stream."""


@st.composite
def stream_bodies(draw: st.DrawFn) -> Sample:
    """Return an answer in pieces, with others among them; missing, repeated or unordered if no secret is split."""
    text = draw(json_texts())
    form = draw(st.sampled_from(STREAMS))
    if draw(st.booleans()):
        places = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
        cut = [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
        events = form(cut)
        for place, other in draw(st.lists(st.tuples(st.integers(0, len(events)), hostile), max_size=2)):
            events.insert(place, other)
    else:
        pair = f'"{draw(st.sampled_from(PLAIN_KEYS))}": "{MARKER}"'
        before, after = st.sampled_from(['{"a": ', '"x", ', "{", '"']), st.sampled_from([', "b": 1}', "}", ""])
        whole = form([draw(before), pair, draw(after)])
        events = draw(st.lists(st.sampled_from(whole) | hostile, max_size=2 * len(whole)))
    return Sample(draw(_events(events)), draw(content_types("text/event-stream")))


@st.composite
def _events(draw: st.DrawFn, events: list[Any]) -> bytes:
    """Return the events, written in any way that the standard allows, and some others."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    data = draw(st.sampled_from(["data: ", "data:"]))
    before = st.sampled_from(
        ["", ": ping" + end + end, f"event: x{end}", f"id: 1{end}", f"data{end}{end}", "junk" + end]
    )
    blocks = [f"{draw(before)}{data}{json.dumps(event)}{end}" for event in events]
    last = draw(st.sampled_from(["", "data: [DONE]" + end + end]))
    return (draw(st.sampled_from(["", "\ufeff"])) + end.join(blocks) + end + last).encode(errors="replace")


# --- encodings -------------------------------------------------------------------------------------------------


def _bare_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


def brotli(data: bytes) -> bytes:
    """Compress, if the library is installed."""
    library: Any = importlib.import_module("brotli")
    return bytes(library.compress(data, quality=5))


def zstd(data: bytes) -> bytes:
    """Compress, if the library is installed."""
    if importlib.util.find_spec("compression"):
        library: Any = importlib.import_module("compression.zstd")
        return bytes(library.compress(data))
    import zstandard

    return zstandard.ZstdCompressor().compress(data)


ENCODERS: dict[str, list[Callable[[bytes], bytes]]] = {
    "gzip": [gzip.compress, lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:])],
    "deflate": [zlib.compress, _bare_deflate],
}
"""Content encodings that can be made here -> functions that make them."""

if importlib.util.find_spec("brotli"):
    ENCODERS["br"] = [brotli]
if importlib.util.find_spec("zstandard") or importlib.util.find_spec("compression"):
    ENCODERS["zstd"] = [zstd]


def bomb(encoding: str, size: int = 10_000_000) -> bytes:
    """Return a few bytes that decompress to millions, with a secret among them."""
    return ENCODERS[encoding][0](b'{"password": "' + MARKER.encode() * (size // len(MARKER)))


@st.composite
def encoded(draw: st.DrawFn, samples: st.SearchStrategy[Sample]) -> Sample:
    """Encode bodies up to four times, sometimes as bombs; now and then the header is wrong."""
    sample = draw(samples)
    data, names = sample.data, draw(st.lists(st.sampled_from(sorted(ENCODERS)), min_size=1, max_size=4))
    if draw(st.integers(0, 9)) == 0:
        data = draw(st.sampled_from(BOMBS[names[0]]))
    else:
        data = draw(st.sampled_from(ENCODERS[names[0]]))(data)
    for name in names[1:]:
        data = draw(st.sampled_from(ENCODERS[name]))(data)
    header = draw(st.sampled_from([", ", ","])).join(names)
    return replace(sample, data=data, encoding=header)


BOMBS: dict[str, list[bytes]] = {}
"""Filled by the users of `encoded`, as bombs take seconds to make."""


@st.composite
def mutated(draw: st.DrawFn, samples: st.SearchStrategy[Sample]) -> Sample:
    """Return bodies with bytes changed, lost, added or doubled; and large ones that repeat a piece."""
    sample = draw(samples)
    data = bytearray(sample.data)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        piece = draw(st.binary(max_size=4) | st.just(bytes(data[start:end] * 2)))
        data[start:end] = piece
    if draw(st.integers(0, 4)) == 0:
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 60)))
        piece = bytes(data[start:end])
        data[start:end] = piece * (70_000 // max(1, len(piece)))
    return replace(sample, data=bytes(data), is_secret=False)


@dataclass(frozen=True)
class Asked:
    """One request without a body.

    Attributes:
        headers: The headers, as a server passes them on.
        path: The decoded path.
        query: The percent-encoded query.
    """

    headers: tuple[tuple[bytes, bytes], ...]
    path: str
    query: bytes


header_names = st.sampled_from([b"x-session-id", b"x-user-id", b"x-request-id", b"host", b"cookie", b"traceparent"])


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    """Return headers, a path and a query of any size: short and long, few and many, equal and distinct."""
    pair = st.tuples(header_names | st.binary(min_size=1, max_size=40), st.binary(max_size=100))
    few = draw(st.lists(pair, max_size=8))
    name, value = draw(pair)
    times, is_distinct = draw(st.sampled_from([0, 1, 300, 5_000])), draw(st.booleans())
    many = [(name + b"-%d" % number if is_distinct else name, value) for number in range(times)]
    large = [(name, value * draw(st.sampled_from([1, 1_000, 20_000])))]
    path = "/" + draw(st.text(max_size=50)) * draw(st.sampled_from([1, 2_000]))
    query = draw(st.binary(max_size=50) | st.sampled_from([b"&", b"a=1&", b"a[]=%7B&", b"%"])) * draw(
        st.sampled_from([1, 5_000])
    )
    return Asked((*few, *many, *large), path, query)
