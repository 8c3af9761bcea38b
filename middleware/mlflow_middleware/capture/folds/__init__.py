"""Streams of language models: their chunks are folded into one response. Each protocol has its own module."""

from __future__ import annotations

from typing import Any

from mlflow_middleware.capture.folds.ag_ui import AgUi
from mlflow_middleware.capture.folds.anthropic import Anthropic
from mlflow_middleware.capture.folds.base import Fold
from mlflow_middleware.capture.folds.converse import Converse
from mlflow_middleware.capture.folds.gemini import Gemini
from mlflow_middleware.capture.folds.ollama import Ollama
from mlflow_middleware.capture.folds.openai_chat import Chat
from mlflow_middleware.capture.folds.openai_responses import Responses
from mlflow_middleware.capture.folds.ui_messages import UiMessage

FOLDS: tuple[type[Fold], ...] = (Chat, Responses, Anthropic, Gemini, Converse, AgUi, UiMessage, Ollama)

LOOKED_AT = 10
"""Maximum number of chunks that are examined to recognize a stream; the first may be something else."""


def fold_for(pieces: list[Any], limit: int | None = None) -> Fold | None:
    """Return the fold for a stream that begins with these chunks; None if it is not recognized.

    Args:
        pieces: The first chunks.
        limit: Maximum number of characters that are kept of each text; None keeps all.
    """
    for piece in pieces[:LOOKED_AT]:
        for kind in FOLDS:
            if isinstance(piece, dict) and kind.knows(piece):
                return kind(limit)
    return None
