"""How our headers join those of a response: added, never in the place of the app's own, and readable by browsers."""

from __future__ import annotations

from collections.abc import Collection

EXPOSE = "access-control-expose-headers"
"""https://fetch.spec.whatwg.org/#http-access-control-expose-headers"""


def join(headers: list[tuple[str, str]], ours: Collection[tuple[str, str]], *, cross_origin: bool) -> None:
    """Add our headers to a response's, in place.

    Args:
        headers: The response's headers.
        ours: What we want to add; left out where the app has set a header of that name itself.
        cross_origin: Whether the request came with an ``Origin``: then scripts may read only what is exposed.
    """
    present = {name.lower(): index for index, (name, _) in enumerate(headers)}
    exposed = [value for name, value in headers if name.lower() == EXPOSE] if cross_origin else []
    headers += [(name, value) for name, value in ours if name.lower() not in present]
    have = {part.strip().lower() for value in exposed for part in value.split(",")}
    names = [name for name, _ in ours if name.lower() not in have] if cross_origin else []
    if not names or "*" in have:
        return
    if EXPOSE not in present:
        headers.append(("Access-Control-Expose-Headers", ", ".join(names)))
        return
    name, value = headers[present[EXPOSE]]
    headers[present[EXPOSE]] = (name, ", ".join([*filter(None, [value.strip()]), *names]))
