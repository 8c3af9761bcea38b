"""Score the traces of the last hour, and show the scores beside the users' ratings.

::

    pip install -r evaluation/requirements.txt        # in examples/
    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    python -m evaluation.score

The judge is the model ``OPENAI_MODEL`` at ``OPENAI_BASE_URL``, with the key in ``OPENAI_API_KEY``; without an address
it is the stand-in of ``judge_endpoint.py``. Traces that have a score are not scored again: run it every hour.
"""

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import mlflow
from mlflow.entities import AssessmentSourceType, Feedback, SpanType, Trace
from mlflow.entities.trace_info import TraceInfo
from mlflow.genai.judges import make_judge
from mlflow.genai.scorers import scorer

from mlflow_middleware import traces

from . import judge_endpoint

RATING = "response_is_correct"
"""The name under which users rate; see docs/feedback.md."""


def text_of(outputs: Any) -> str:
    """Return the text of an answer in OpenAI's format; empty if there is none."""
    try:
        return str(outputs["choices"][0]["message"]["content"])
    except (LookupError, TypeError):  # an error, or an answer in another format
        return ""


@scorer
def answered(outputs: Any) -> bool:
    """Return whether there is an answer at all."""
    return bool(text_of(outputs))


@scorer
def words(outputs: Any) -> int:
    """Return the length of the answer."""
    return len(text_of(outputs).split())


@scorer
def seconds(trace: Trace) -> float:
    """Return the time to the last byte of the answer."""
    return (trace.info.execution_duration or 0) / 1000


@scorer
def has_source(trace: Trace) -> Feedback:
    """Return whether the retriever found a document to answer from."""
    found = [document for span in trace.search_spans(span_type=SpanType.RETRIEVER) for document in span.outputs or []]
    names = ", ".join(document["metadata"]["doc_uri"] for document in found)
    return Feedback(value=bool(found), rationale=names or "nothing was found")


judge = make_judge(
    name="helpful",
    instructions="Does the answer help the user who asked?\nAsked: {{ inputs }}\nAnswer: {{ outputs }}",
    model=f"openai:/{os.environ.get('OPENAI_MODEL', 'gpt-4o-mini')}",
    feedback_value_type=bool,
)


@scorer
def helpful(inputs: Any, outputs: Any, trace: Trace) -> Feedback | None:
    """Ask the judge, if there is an answer that it has not judged yet."""
    return judge(inputs=inputs, outputs=outputs) if text_of(outputs) and not verdict(trace.info) else None


SCORERS = [answered, words, seconds, has_source, helpful]


def last_hour() -> list[TraceInfo]:
    """Return the traces to score, newest first."""
    return list(traces.find(since=timedelta(hours=1), limit=None))


def score(found: Iterable[TraceInfo]) -> None:
    """Score the traces that have no scores yet."""
    new = [trace.trace_id for trace in found if newest(trace, answered.name) is None]
    if whole := [trace for trace in map(traces.get, new) if trace]:
        if "OPENAI_BASE_URL" not in os.environ:
            os.environ |= {"OPENAI_BASE_URL": judge_endpoint.start(), "OPENAI_API_KEY": "none"}
        mlflow.tracing.disable()  # otherwise scorers can leave traces of their own in the app's experiment
        mlflow.genai.evaluate(data=whole, scorers=SCORERS)


def newest(trace: TraceInfo, name: str, source: str = AssessmentSourceType.CODE) -> Feedback | None:
    """Return the last feedback of this name by a source of this kind."""
    valid = (each for each in trace.assessments if isinstance(each, Feedback) and each.valid and not each.error)
    named = [each for each in valid if (each.name, each.source.source_type) == (name, source)]
    return max(named, key=lambda each: each.create_time_ms, default=None)


def rating(trace: TraceInfo) -> Feedback | None:
    """Return the user's last rating of the answer."""
    return newest(trace, RATING, AssessmentSourceType.HUMAN)


def verdict(trace: TraceInfo) -> Feedback | None:
    """Return the judge's last verdict on the answer."""
    return newest(trace, judge.name, AssessmentSourceType.LLM_JUDGE)


def table(found: Iterable[TraceInfo]) -> Iterator[list[object]]:
    """Return the users' ratings beside the scores, one row for each trace."""
    code = [each.name for each in SCORERS if each is not helpful]
    yield ["trace", "question", "rating", judge.name, *code]
    for trace in found:
        given = [rating(trace), verdict(trace), *(newest(trace, name) for name in code)]
        yield [trace.trace_id, trace.request_preview or "-", *("-" if each is None else each.value for each in given)]


def disagreements(found: Iterable[TraceInfo]) -> Iterator[list[object]]:
    """Return the traces on which judge and user disagree: one of them is wrong, and it is worth knowing which."""
    yield ["trace", "question", "rating", "comment", judge.name, "rationale"]
    for trace in found:
        said, judged = rating(trace), verdict(trace)
        if said and judged and said.value != judged.value:
            comment = said.rationale or "-"
            yield [trace.trace_id, trace.request_preview or "-", said.value, comment, judged.value, judged.rationale]


def text(cell: object) -> str:
    """Format a cell as one line, without the control characters that users may have written."""
    if isinstance(cell, float):  # MLflow stores all numbers like that
        return f"{cell:g}"
    return " ".join("".join(char if char.isprintable() else " " for char in str(cell)).split())[:60]


def show(rows: Iterable[list[object]]) -> None:
    """Print a table."""
    lines = [[text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    score(last_hour())
    scored = last_hour()
    show(table(scored))
    print("\nWhere users and judge disagree:")
    show(disagreements(scored))
