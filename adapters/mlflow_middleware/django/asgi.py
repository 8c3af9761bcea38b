"""ASGI entry point of a Django project, with lifespan support.

::

    # asgi.py, instead of django.core.asgi
    from mlflow_middleware.django.asgi import get_asgi_application

    application = get_asgi_application()

Django's own application does not support the lifespan protocol, so that the middleware does not learn that uvicorn is
about to end the process: the last traces are lost or spooled. This application delivers them first. Keep the middleware
in ``MIDDLEWARE`` and all settings unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.asgi import get_asgi_application as django_application

from mlflow_middleware.asgi import ASGIApp, flushing

if TYPE_CHECKING:
    from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope


def get_asgi_application() -> ASGIApp:
    """Return the project's ASGI application, like Django's function of that name, with lifespan support."""
    application: Any = django_application()

    async def with_lifespan(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
        else:
            await serve_lifespan(receive, send)

    return with_lifespan


async def serve_lifespan(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answer a server's lifespan messages; deliver pending traces before the shutdown is confirmed."""
    send = flushing(send)
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
