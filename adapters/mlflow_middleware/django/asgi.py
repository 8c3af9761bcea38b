"""The ASGI entry point of a Django project, with a lifespan.

::

    # asgi.py, in the place of django.core.asgi
    from mlflow_middleware.django.asgi import get_asgi_application

    application = get_asgi_application()

Django's own application knows no lifespan, so nothing tells us that uvicorn is about to end the process: what was
traced in the last moments is then lost, or left to the spool. This one delivers it first. The middleware stays in
``MIDDLEWARE``; all settings stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.asgi import get_asgi_application as django_application

from mlflow_middleware.asgi import ASGIApp, flushing

if TYPE_CHECKING:
    from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope


def get_asgi_application() -> ASGIApp:
    """Build the project's ASGI application, as Django's function of that name does, with a lifespan."""
    application: Any = django_application()

    async def with_lifespan(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
        else:
            await serve_lifespan(receive, send)

    return with_lifespan


async def serve_lifespan(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answer a server's start and end; at the end, what waits is delivered first."""
    send = flushing(send)
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
