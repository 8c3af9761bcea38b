"""Serves the project `tests.apps.django_settings` through WSGI and ASGI."""

import os

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.apps.django_settings"
wsgi = get_wsgi_application()
asgi = get_asgi_application()
