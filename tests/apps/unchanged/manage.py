"""The project's `manage.py`, which is not executable."""

from __future__ import annotations

import sys

from django.core.management import execute_from_command_line

import tests.apps.unchanged.django_app  # noqa: F401 - it configures the settings

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
