"""Runs the steps of a Dockerfile without a container engine, in a folder that stands for the image's root.

Absolute paths in its instructions become paths in that folder; the base image is this Python; the image's user is
the user who runs the tests. ``useradd`` would change this machine, and is left out.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_ABSOLUTE = re.compile(r"(?<![\w./$-])/(?=[a-z])")
"""The start of an absolute path."""


class Instruction(NamedTuple):
    """One instruction: its keyword, its options (``--from=build``), and the rest."""

    keyword: str
    options: dict[str, str]
    rest: str


def instructions(dockerfile: Path) -> list[Instruction]:
    """Parse a Dockerfile."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    parsed = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            keyword, _, rest = line.strip().partition(" ")
            found = re.match(r"(?:\s*--[\w-]+=\S+)*", rest)
            options = dict(each[2:].split("=", 1) for each in (found[0] if found else "").split())
            parsed.append(Instruction(keyword, options, rest[found.end() if found else 0 :].strip()))
    return parsed


@dataclass
class Image:
    """The result of the last stage's steps.

    Attributes:
        root: The folder that stands for ``/``.
        environment: The variables that ``ENV`` has set.
        directory: The last ``WORKDIR``.
        said: Keyword -> its last argument.
        left_out: The commands that were not run.
    """

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    directory: Path = Path("/")
    said: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def inside(self, text: str) -> str:
        """Return the same text with absolute paths in the folder."""
        return _ABSOLUTE.sub(f"{self.root}/", text)

    def command(self, keyword: str = "CMD") -> list[str]:
        """Return a command in its exec form, also that of ``HEALTHCHECK``."""
        command: list[str] = json.loads(self.said[keyword].removeprefix("CMD "))
        return command

    def take(self, step: Instruction, context: Path, stages: dict[str, Path]) -> None:
        """Execute one instruction."""
        self.said[step.keyword] = step.rest
        if step.keyword == "RUN":
            self._run(step.rest)
        elif step.keyword == "COPY":
            *sources, target = step.rest.split()
            origin = stages[step.options["from"]] if "from" in step.options else context
            self._copy([origin / source.lstrip("/") for source in sources], target)
        elif step.keyword == "ENV":
            for name, _, value in (each.partition("=") for each in shlex.split(step.rest)):
                old = self.environment.get(name, "")
                self.environment[name] = self.inside(value).replace(f"${name}", old)
        elif step.keyword == "WORKDIR":
            self.directory = Path(self.inside(step.rest))
            self.directory.mkdir(parents=True, exist_ok=True)

    def _run(self, command: str) -> None:
        if command.startswith("useradd "):
            self.left_out.append(command)
            return
        ours = re.sub(r"-o \d+ -g \d+", f"-o {os.getuid()} -g {os.getgid()}", self.inside(command))
        done = subprocess.run(
            ["sh", "-e", "-c", ours],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

    def _copy(self, sources: list[Path], target: str) -> None:
        place = self.directory / self.inside(target)
        for source in sources:
            if source.is_dir():
                shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
            elif target.endswith("/"):
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, place)
            else:
                shutil.copy2(source, place)


def build(dockerfile: Path, context: Path, folder: Path) -> Image:
    """Run all steps; each stage starts with nothing but the base image, and only ``COPY --from`` reads another stage.

    Args:
        dockerfile: The file.
        context: The directory that ``COPY`` reads.
        folder: The build directory; the image is in ``folder / "root"``, since a virtual environment cannot be moved.
    """
    root, stages, image = folder / "root", dict[str, Path](), None
    for step in instructions(dockerfile):
        if step.keyword == "FROM":
            if image:
                root.rename(stages["the one before"])
            _, *name = re.split(r"\s+as\s+", step.rest, flags=re.IGNORECASE)
            kept = folder / (name[0] if name else "last")
            stages |= {"the one before": kept, **dict.fromkeys(name, kept)}
            image = Image(root, _of_the_base_image(root))
            image.directory = root
        assert image, "FROM comes first"
        image.take(step, context, stages)
    assert image
    return image


def _of_the_base_image(root: Path) -> dict[str, str]:
    """Create a root with this Python; its processes' variables include none of this machine's but the package index."""
    programs = root / "usr" / "local" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(Path(sys._base_executable))  # type: ignore[attr-defined]
    registry = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name in _TRUST}
    return {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(root.parent / "home"), **registry}


_TRUST = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy"}
