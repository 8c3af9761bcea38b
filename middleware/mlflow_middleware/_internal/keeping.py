"""The limits on what is read and stored of requests, by path: the options on content, resolved once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mlflow_middleware._internal.exclusion import compiled_globs

if TYPE_CHECKING:
    from mlflow_middleware._internal.option_fields import Options


class Keeping(NamedTuple):
    """Limits on what is read and stored of the requests to a path.

    Attributes:
        of_request: Maximum number of bytes read of a request's body; it is read for the model's name even if it is not
            stored.
        of_response: Maximum number of bytes read of a response's body; it is read for its token usage even if it is not
            stored.
        inputs: Whether the request's body and query string are stored.
        outputs: Whether the response's body is stored.
        words: Whether anything is stored that may contain a person's or a model's words.
        path: Whether the path is stored.
    """

    of_request: int
    of_response: int
    inputs: bool
    outputs: bool
    words: bool
    path: bool = True


class KeepingOfPaths:
    """Lookup of the limits for each path.

    Args:
        options: The options.
    """

    def __init__(self, options: Options) -> None:
        self._metadata_only = compiled_globs(options.metadata_only)
        self._of_metadata_only = _without_content(options.max_body_bytes, path=False)
        self._of_others = _kept(options)

    def of(self, path: str) -> Keeping:
        """Return the limits for the requests to this path."""
        is_metadata_only = self._metadata_only is not None and self._metadata_only.fullmatch(path) is not None
        return self._of_metadata_only if is_metadata_only else self._of_others


def _kept(options: Options) -> Keeping:
    limit = options.max_body_bytes
    sent, answer = options.capture_request_body, options.capture_response_body
    if options.content == "none":
        return _without_content(limit)
    if options.privacy == "strict":
        return Keeping(limit, limit, inputs=False, outputs=False, words=True)
    return Keeping(limit if sent else 0, limit if answer else 0, sent, answer, words=True)


def _without_content(limit: int, *, path: bool = True) -> Keeping:
    return Keeping(limit, limit, inputs=False, outputs=False, words=False, path=path)
