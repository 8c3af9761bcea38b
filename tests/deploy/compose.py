"""Runs the services of a compose file as local processes: their commands and variables, on free ports."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.servers import free_port

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


class Compose:
    """A compose file whose services are all on this host.

    Args:
        file: The file.
        variables: The variables to interpolate.
    """

    def __init__(self, file: Path, variables: dict[str, str]) -> None:
        self.services: dict[str, dict[str, Any]] = yaml.safe_load(interpolated(file.read_text(), variables))["services"]
        self.ports: dict[tuple[str, str], int] = {}

    def port(self, service: str, port: str) -> int:
        """Return the port on this host that stands for a service's port; the same one each time."""
        if (service, port) not in self.ports:
            self.ports[service, port] = free_port()
        return self.ports[service, port]

    def environment(self, service: str) -> dict[str, str]:
        """Return the variables of a service."""
        said = self.services[service].get("environment", {})
        return {name: self._here(str(value)) for name, value in said.items()}

    def command(self, service: str) -> list[str]:
        """Return the command of a service; ``--allowed-hosts`` stays unchanged."""
        return self.listening(service, self.services[service]["command"])

    def listening(self, service: str, command: list[str]) -> list[str]:
        """Return a command that listens on this host only, on the port that stands for the service's own."""
        pairs = zip(["", *command], command, strict=False)
        return [self._argument(service, before, str(each)) for before, each in pairs]

    def _argument(self, service: str, before: str, argument: str) -> str:
        if before == "--port":
            return str(self.port(service, argument))
        if before == "--host":
            return "127.0.0.1"
        return argument if before == "--allowed-hosts" else self._here(argument)

    def _here(self, text: str) -> str:
        """Replace services' names with this host; localhost by name, as the services are called by name."""
        names = "|".join(self.services)
        return re.sub(rf"(?<=[/@])({names}):(\d+)", lambda found: f"localhost:{self.port(found[1], found[2])}", text)


def interpolated(text: str, variables: dict[str, str]) -> str:
    """Replace ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?}``; the last must be set."""

    def value(found: re.Match[str]) -> str:
        name, how, default = found.groups()
        if how == "-":
            return variables.get(name) or default
        return variables[name]

    return _VARIABLE.sub(value, text)


def run_to_its_end(command: list[str], environment: dict[str, str], folder: Path) -> str:
    """Run a command; return its output, and fail if it fails."""
    done = subprocess.run(
        command,
        env={**environment, "TMPDIR": os.environ.get("TMPDIR", "/tmp")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
