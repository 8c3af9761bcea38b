"""The layout: the imports that each room of the code may have, and the required contents of a wheel."""

from __future__ import annotations

import ast
import functools
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path
from typing import get_args

import pytest
from packaging.requirements import Requirement

from mlflow_middleware.mlflow_bridge import names
from mlflow_middleware.settings import Settings
from mlflow_middleware.trace import keys
from tests.servers import ROOT

CORE = ROOT / "middleware" / "mlflow_middleware"
ADAPTERS = ROOT / "adapters" / "mlflow_middleware"
SOURCES = sorted([*CORE.rglob("*.py"), *ADAPTERS.rglob("*.py")])
CORE_SOURCES = sorted(CORE.rglob("*.py"))
BRIDGE = CORE / "mlflow_bridge"
FRAMEWORKS = {"fastapi", "starlette", "flask", "werkzeug", "django"}
PARSERS = {"werkzeug.sansio", "werkzeug.exceptions"}
"""Werkzeug's form parser, which the core imports with the first form."""
TRACING = {"mlflow", "opentelemetry"}
OF_FRAMEWORKS = {"_body", "_get_current_object"}
"""The parts of Django's requests and Flask's proxies that the adapters use."""

DISTRIBUTIONS = {"mlflow": "mlflow-tracing", "opentelemetry": "opentelemetry-sdk"}


def relative(path: Path) -> str:
    """Return a source file's name for a test's id."""
    return path.relative_to(ROOT).as_posix()


@functools.cache
def imports(path: Path) -> list[tuple[str, list[str]]]:
    """Return every import of a source file."""
    return list(imported(ast.parse(path.read_text())))


def imported(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Yield every import: the module and the names taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or "", [alias.name for alias in node.names]


def is_private(name: str) -> bool:
    """Return whether any part of a dotted name starts with one underscore; ``__version__`` is public."""
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def defined(tree: ast.AST) -> set[str]:
    """Return the private names that a module defines: functions, classes, variables, slots and ``self._x = ...``."""
    found = {
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            found.add(node.attr)
        elif isinstance(node, ast.Assign) and _name(node.targets[0]) == "__slots__":
            found |= set(ast.literal_eval(node.value))
    return set(filter(is_private, found))


def private_uses(source: str, ours: set[str]) -> set[str]:
    """Yield the private names of others that a module uses: by import, as an attribute, or by ``getattr`` and the like.

    Args:
        source: The module.
        ours: Private names that only we define.
    """
    tree = ast.parse(source)
    own = defined(tree)
    found: set[str] = set()
    for module, taken in imported(tree):
        if module.split(".")[0] in TRACING:
            found |= {part for part in (*module.split("."), *taken) if is_private(part)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            is_inherited = ast.unparse(node.value) == "super()"
            found |= {node.attr} - ours - (set() if is_inherited else own)
        elif isinstance(node, ast.Call) and _name(node.func) in BY_TEXT:
            texts = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            found |= {text for text in texts if is_private(text)} - own - ours
    return found


BY_TEXT = {"getattr", "setattr", "hasattr", "delattr", "attrgetter", "methodcaller"}
"""Functions that take an attribute's name as text."""


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _name(node: ast.expr) -> str:
    """Return the last part of a name that is called or assigned."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("folder", [CORE, ADAPTERS], ids=relative)
def test_the_namespace_has_no_init(folder: Path) -> None:
    """An ``__init__.py`` there would hide one of the two source roots in an editable install."""
    assert folder.is_dir()
    assert not (folder / "__init__.py").exists()


def test_every_package_is_typed() -> None:
    """The core's folder and each adapter hold ``py.typed``, never both at one path."""
    adapters = [folder for folder in ADAPTERS.iterdir() if (folder / "__init__.py").exists()]

    assert {folder.name for folder in adapters} == {"fastapi", "flask", "django"}
    assert [folder.name for folder in (CORE, *adapters) if not (folder / "py.typed").exists()] == []
    assert not (ADAPTERS / "py.typed").exists()


def test_no_path_exists_in_both_roots() -> None:
    """One would overwrite the other in the wheel."""
    both = [
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        for folder in (CORE, ADAPTERS)
    ]

    assert both[0] & both[1] == set()


@functools.cache
def ours() -> set[str]:
    """Return our private names that no other package has."""
    return set().union(*(defined(ast.parse(path.read_text())) for path in SOURCES)) - {name.name for name in names.ALL}


def test_only_the_bridge_uses_private_names() -> None:
    """No other module imports or reads a private name of MLflow or OpenTelemetry."""
    others = [path for path in SOURCES if BRIDGE not in path.parents]
    used = {relative(path): private_uses(path.read_text(), ours()) - OF_FRAMEWORKS for path in others}

    assert {file: found for file, found in used.items() if found} == {}


def test_each_private_name_is_listed() -> None:
    """The list has all that the bridge uses, and no others."""
    used = {path.name: private_uses(path.read_text(), ours()) for path in sorted(BRIDGE.glob("*.py"))}
    listed = {name.name for name in names.ALL} | {"_tracking_service", "_Once__lock"}  # a package; written out

    assert {file: found - listed for file, found in used.items() if found - listed} == {}
    assert {name.name for name in names.ALL} - set().union(*used.values()) == set()


@pytest.mark.parametrize("name", names.ALL, ids=lambda name: name.name)
def test_each_listed_name_exists(name: names.Name) -> None:
    """The installed MLflow, OpenTelemetry SDK and Python have it, unless they are older than the name."""
    package = name.owner.split(".")[0]
    installed = platform.python_version() if package not in TRACING else version(DISTRIBUTIONS[package])
    if name.is_optional and _numbers(installed) < _numbers(name.since):
        pytest.skip(f"{name.since} is the first that has it, {installed} is installed")

    assert names.is_there(name.owner, name.name)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


@pytest.mark.parametrize(
    "source",
    [
        "from mlflow.tracking import _tracking_service",
        "from mlflow.tracking._tracking_service import utils",
        "import mlflow.tracking._tracking_service",
        "import opentelemetry.sdk._logs",
        "import mlflow\nmlflow._active",
        "import mlflow as m\nm.tracing.provider._get_tracer('x')",
        "from mlflow.tracing import provider as p\np._get_tracer",
        "from mlflow import get_current_active_span\nget_current_active_span()._span",
        "def f():\n    from opentelemetry.sdk import _logs",
        "def f(span):\n    return span._attributes",
        "def f(span):\n    return getattr(span, '_attributes')",
        "def f(span):\n    return hasattr(span, '_attributes')",
        "import operator\nf = operator.attrgetter('_attributes')",
        "class C(Base):\n    def f(self):\n        return self._inherited",
        "class C(Base):\n    def f(self):\n        return super()._inherited",
    ],
)
def test_a_private_use_is_found(source: str) -> None:
    """The search above finds every way to write one."""
    assert private_uses(source, set())


def test_a_public_use_is_not_found() -> None:
    """Public names, dunders and our own private names are ignored."""
    source = (
        "import mlflow\nfrom opentelemetry.trace import Link\nmlflow.__version__\nLink(1).context\n"
        "class C:\n    __slots__ = ('_slot',)\n    def __init__(self):\n        self._span = 1\n"
        "    def f(self):\n        return self._span, self._slot"
    )

    assert private_uses(source, set()) == set()


PACKAGES = {"google": "protobuf", "mlflow": "mlflow-tracing", "starlette": "fastapi", "click": "flask"}
"""Modules whose package has another name, or always comes with another package."""

UNDECLARED = {"pytest", "prometheus_client", "_typeshed"}
"""Users of our pytest plugin have pytest, and those of our collector prometheus_client; typeshed is only for
type checkers."""


def package_of(module: str) -> str:
    """Return the packages that provide a module; OpenTelemetry's come from several."""
    first, *rest = module.split(".")
    if first == "opentelemetry":
        return f"opentelemetry-{rest[0] if rest[0] in ('sdk', 'proto') else 'api'}"
    return PACKAGES.get(first, first).replace("_", "-")


def required(extra: str) -> set[str]:
    """Return the packages that we require, or those of one of our extras."""
    found = [Requirement(each) for each in requires("mlflow-middleware") or ()]
    return {each.name for each in found if each.marker is None or each.marker.evaluate({"extra": extra})}


def undeclared(path: Path) -> set[str]:
    """Return the packages that a module imports, and that neither we nor the extra of its adapter require."""
    known = {*sys.stdlib_module_names, *UNDECLARED, "mlflow_middleware"}
    others = {name for name, _ in imports(path) if name.split(".")[0] not in known}
    extra = path.relative_to(ADAPTERS).parts[0] if ADAPTERS in path.parents else ""
    return {package_of(name) for name in others} - required(extra)


def test_each_import_is_a_declared_requirement() -> None:
    """Each package is required, or is in the extra of its adapter."""
    assert {relative(path): found for path in SOURCES if (found := undeclared(path))} == {}


def test_each_requirement_is_bounded() -> None:
    """Each of our own requirements has an oldest and a newest version."""
    found = [Requirement(each) for each in requires("mlflow-middleware") or ()]
    signs = {each.name: {part.operator for part in each.specifier} for each in found if each.marker is None}

    assert {name for name, each in signs.items() if each != {">=", "<"}} == set()


def test_the_core_imports_no_framework() -> None:
    """Not even inside a function."""
    adapters = tuple(f"mlflow_middleware.{adapter.name}" for adapter in ADAPTERS.iterdir())
    found = {(relative(path), module) for path in CORE_SOURCES for module, _ in imports(path)}

    assert {each for each in found if each[1].split(".")[0] in FRAMEWORKS and each[1] not in PARSERS} == set()
    assert {each for each in found if each[1].startswith(adapters)} == set()


ABOVE = {
    "trace": {"mlflow_bridge", "delivery", "request", "request_trace", "asgi", "wsgi", "feedback", "commands"},
    "mlflow_bridge": {"delivery", "request", "request_trace", "asgi", "wsgi", "feedback", "commands"},
    "delivery": {"request", "request_trace", "asgi", "wsgi", "feedback", "commands"},
    "request": {"request_trace", "asgi", "wsgi", "feedback", "commands"},
}
"""Room -> the rooms above it, which its modules may not import."""


@pytest.mark.parametrize("room", ABOVE)
def test_no_room_imports_one_above_it(room: str) -> None:
    """A trace goes down through the rooms: only data is passed on."""
    known = {
        part
        for path in (CORE / room).rglob("*.py")
        for module, names_ in imports(path)
        if module.split(".")[0] == "mlflow_middleware"
        for part in (module.split(".")[1:2] or names_)
    }

    assert "_internal" in known or "capture" in known  # otherwise nothing was checked
    assert not known & ABOVE[room]


WITHOUT_TRACING = ("_internal", "capture", "exchange", "identity", "propagation", "routing", "settings")
"""First words of the rooms and modules that do not depend on MLflow's version; see `mlflow-oldest` in tox.ini."""


def test_rooms_tested_with_one_mlflow_import_none() -> None:
    """Neither MLflow nor OpenTelemetry; so their tests do not have to run with several versions."""
    paths = [path for path in CORE_SOURCES if path.relative_to(CORE).as_posix().startswith(WITHOUT_TRACING)]
    found = {relative(path): {name for name, _ in imports(path) if name.split(".")[0] in TRACING} for path in paths}

    assert len(found) > 50
    assert {file: names for file, names in found.items() if names} == {}


IN_APPS = [path for path in SOURCES if not {"commands", "demo"} & set(path.parts) and path.name != "clock.py"]
"""The modules that run in an app's process, and so in its tests, too."""


def clocks(path: Path) -> set[str]:
    """Return the clocks that a module reads."""
    text = path.read_text()
    nodes = ast.walk(ast.parse(text)) if "time." in text else ()
    used = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    return used & {"time.monotonic", "time.perf_counter"}


def test_no_wait_uses_a_clock_that_tests_freeze() -> None:
    """All use `_internal.clock`."""
    assert {relative(path): found for path in IN_APPS if (found := clocks(path))} == {}


@pytest.mark.once
def test_importing_the_core_loads_no_framework() -> None:
    """In a fresh interpreter, for all of its modules; what MLflow itself loads does not count."""
    modules = [
        ".".join(path.relative_to(CORE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in CORE_SOURCES
        if path.name != "__main__.py"
    ]
    program = (
        "import importlib, json, sys\n"
        "import mlflow\n"
        "before = set(sys.modules)\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps(sorted({FRAMEWORKS!r} & (set(sys.modules) - before))))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)

    assert done.stderr == ""
    assert json.loads(done.stdout) == []


def test_the_stored_format_is_mlflows() -> None:
    """Keys and limits, which are literals here, are those of the installed MLflow, as far as it has them."""
    from mlflow import entities
    from mlflow.tracing import constant

    levels = getattr(entities, "SpanLogLevel", None)  # since MLflow 3.13
    spans, metadata, tags = constant.SpanAttributeKey, constant.TraceMetadataKey, constant.TraceTagKey
    theirs = {
        "NAME": tags.TRACE_NAME,
        "SESSION": metadata.TRACE_SESSION,
        "USER": metadata.TRACE_USER,
        "TRACE_INPUTS": metadata.INPUTS,
        "TRACE_OUTPUTS": metadata.OUTPUTS,
        "TOKEN_USAGE": metadata.TOKEN_USAGE,
        "TRACE_COST": getattr(metadata, "COST", keys.TRACE_COST),
        "CLIENT_REQUEST_ID": "client_request_id",  # a tag of our own
        "SIZE_STATS": metadata.SIZE_STATS,
        "SIZE_BYTES": getattr(metadata, "SIZE_BYTES", keys.SIZE_BYTES),
        "SOURCE_RUN": metadata.SOURCE_RUN,
        "MODEL_ID": metadata.MODEL_ID,
        "SCHEMA_VERSION": constant.TRACE_SCHEMA_VERSION_KEY,
        "SCHEMA": str(constant.TRACE_SCHEMA_VERSION),
        "REQUEST_ID": spans.REQUEST_ID,
        "EXPERIMENT_ID": spans.EXPERIMENT_ID,
        "SPAN_TYPE": spans.SPAN_TYPE,
        "INPUTS": spans.INPUTS,
        "OUTPUTS": spans.OUTPUTS,
        "USAGE": spans.CHAT_USAGE,
        "COST": getattr(spans, "LLM_COST", keys.COST),
        "MODEL": getattr(spans, "MODEL", keys.MODEL),
        "PROVIDER": getattr(spans, "MODEL_PROVIDER", keys.PROVIDER),
        "MODELS": "gen_ai.response.model",  # a tag of our own
        "LOG_LEVEL": getattr(spans, "LOG_LEVEL", keys.LOG_LEVEL),
        "DEBUG": getattr(levels, "DEBUG", keys.DEBUG),
        "INFO": getattr(levels, "INFO", keys.INFO),
        "ERROR": getattr(levels, "ERROR", keys.ERROR),
        "MAX_METADATA": constant.MAX_CHARS_IN_TRACE_INFO_METADATA,
        "MAX_TAG_KEY": constant.MAX_CHARS_IN_TRACE_INFO_TAGS_KEY,
        "MAX_TAG_VALUE": constant.MAX_CHARS_IN_TRACE_INFO_TAGS_VALUE,
        "MAX_PREVIEW": constant.TRACE_REQUEST_RESPONSE_PREVIEW_MAX_LENGTH_OSS,
        "MAX_CLIENT_REQUEST_ID": 50,
    }

    assert {name: value for name, value in vars(keys).items() if name.isupper()} == theirs
    span_types = get_args(Settings.model_fields["span_type"].annotation)
    assert {getattr(entities.SpanType, name) for name in span_types} == set(span_types)
