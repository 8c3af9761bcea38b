"""The reference has each member of the code's lists, and none that is gone."""

from __future__ import annotations

import ast
import inspect
import re
from collections import Counter
from dataclasses import fields

import pytest

from mlflow_middleware import pytest_plugin
from mlflow_middleware._internal.option_problems import ENV_PREFIX
from mlflow_middleware._internal.platforms import PLATFORMS, TAGS
from mlflow_middleware.auto import TARGETS
from mlflow_middleware.capture import error_rules
from mlflow_middleware.capture.folds import FOLDS
from mlflow_middleware.capture.secret_keys import LAST
from mlflow_middleware.capture.secret_values import Values
from mlflow_middleware.commands import check
from mlflow_middleware.delivery import Stats
from mlflow_middleware.feedback import PROBLEMS, Feedback
from mlflow_middleware.identity_presets import PRESETS
from mlflow_middleware.identity_sources import READERS
from mlflow_middleware.metrics import METRICS, REASONS
from mlflow_middleware.settings import Settings
from tests import command_messages, log_messages, reference, reference_secrets, reference_tables, reference_variables
from tests.servers import ROOT

DOCS = {page.stem: page.read_text() for page in (ROOT / "docs").glob("*.md")}
CORE_TEXTS = [path.read_text() for path in (ROOT / "middleware").rglob("*.py")]


def test_each_table_is_in_one_page() -> None:
    """In a page that is written by hand: those that are generated as a whole have no place for one."""
    assert Counter(name for _, name in reference_tables.places()) == dict.fromkeys(reference_tables.TABLES, 1)
    whole = {reference.SETTINGS_PAGE, reference.COMMAND_LINE_PAGE, reference.LOG_PAGE}
    assert {page for page, _ in reference_tables.places()} & whole == set()


STEPS = {name for name, _, _ in check.STEPS}


@pytest.mark.parametrize(
    ("described", "known"),
    [
        (reference_tables.STEP_FAILS, STEPS),
        (reference_tables.CHECK_MEANS, reference_tables.other_ids()),
        (reference_tables.PLATFORM, PRESETS),
        (reference_tables.LEFT_OUT, reference_tables.left_out_reasons()),
        (reference_tables.LEFT_OUT_BY, reference_tables.left_out_reasons()),
        (reference_tables.STATUS_MEANS, reference_tables.feedback_statuses()),
        (reference_tables.STATUS_MEANS.keys() - {200}, PROBLEMS),
        (reference_variables.VARIABLES, reference_variables.variables_in_the_code()),
        (reference_secrets.WHEN, set(LAST.values())),
    ],
    ids=["steps", "ids", "presets", "left out", "left out by", "statuses", "schema", "variables", "keys"],
)
def test_described_members_match_the_code(described: object, known: object) -> None:
    """A new member needs words, and words for one that is gone are to go."""
    assert set(described) == set(known)  # type: ignore[call-overload]


def test_exceptions_name_members() -> None:
    """Notes on a few members only name existing ones."""
    assert reference_tables.PRESET_NEEDS.keys() - PRESETS.keys() == set()
    assert {name for name, tag in reference_tables.NOT_SIMPLY} - PLATFORMS.keys() == set()
    assert {tag for name, tag in reference_tables.NOT_SIMPLY} - set(TAGS) == set()


def test_each_step_that_can_fail_has_an_id_in_django() -> None:
    """But for the settings, which are checked without `--deploy`, and the latency, which never fails."""
    assert STEPS - reference_tables.step_ids().keys() == {"settings", "latency"}
    assert reference_tables.step_ids().keys() - STEPS == set()


def test_each_built_in_pattern_has_an_example() -> None:
    """And each example is found: the page has no kind of value that is not replaced."""
    patterns = Values(["default"]).patterns
    by_example = {
        kind: [each for each in patterns if each.search(text)] for kind, text in reference_secrets.VALUES.items()
    }

    assert [kind for kind, found in by_example.items() if not found] == []
    assert set(patterns) - {each for found in by_example.values() for each in found} == set()


# --- lines of the commands ---


def test_each_line_of_run_has_one_meaning() -> None:
    """Another line needs an entry of `RUN_MEANS`; one that is left over is to go."""
    found = {line: command_messages.meanings_of(line) for line in command_messages.run_lines()}

    assert {line: keys for line, keys in found.items() if len(keys) != 1} == {}
    assert command_messages.RUN_MEANS.keys() - {key for keys in found.values() for key in keys} == set()


def test_texts_that_are_no_lines_are_in_the_code() -> None:
    """An exception for a text that is gone would hide another one."""
    files = [*command_messages.RUN, *command_messages.CHECK, *command_messages.SENDING]
    files += [path for paths in command_messages.OTHERS.values() for path in paths]
    nodes = [node for path in files for node in ast.walk(command_messages.parsed(path))]
    texts = {log_messages.text_of(node) for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant)}

    assert (command_messages.NO_LINES | command_messages.ENDS) - texts == set()


def test_each_sentence_of_an_error_is_in_the_reference() -> None:
    """But for those of `TO_THE_CALLER` and `INTERNAL`; a new error belongs to one of the three."""
    left_out = command_messages.TO_THE_CALLER | command_messages.INTERNAL
    files = [path for folder in ("middleware", "adapters") for path in sorted((ROOT / folder).rglob("*.py"))]
    raised = [text for path in files for text in command_messages.raised_in(path)]

    assert [
        texts for texts in raised if not any(text in DOCS["log-messages"] or text in left_out for text in texts)
    ] == []
    assert left_out - {text for texts in raised for text in texts} == set()


# --- lists in words ---


def test_reasons_are_those_of_the_counts() -> None:
    """Of traces that are lost: the metric's, those that the code counts, and those in the description of `Stats`."""
    calls = [node for text in CORE_TEXTS for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    counted = {
        call.args[0].value
        for call in calls
        if ast.unparse(call.func).endswith("stats.drop") and isinstance(call.args[0], ast.Constant)
    }
    lost, not_wanted = _described("dropped"), _described("left_out")

    assert {*counted, "queue full"} == set(REASONS) == set(re.findall("``([a-z ]+)``", lost))
    assert set(re.findall("``([a-z_]+)``", not_wanted)) - {"exclude"} == set(reference_tables.left_out_reasons())


def _described(name: str) -> str:
    """The description of a field of `Stats`, which the page of the API shows."""
    (declared,) = ast.parse(inspect.getsource(Stats)).body
    assert isinstance(declared, ast.ClassDef)
    pairs = zip(declared.body, declared.body[1:], strict=False)
    (found,) = [after for each, after in pairs if ast.unparse(each).startswith(f"{name}:")]
    assert isinstance(found, ast.Expr)
    return str(ast.literal_eval(found.value))


def test_dashboard_and_alerts_use_existing_metrics() -> None:
    """By their names in Prometheus, as the page of the metrics does."""
    known = {metric.prometheus_name for metric in METRICS}
    texts = [path.read_text() for path in (ROOT / "examples" / "grafana").iterdir()]

    assert {
        name for text in [*texts, DOCS["metrics"]] for name in re.findall(r"\bmlflow_middleware_\w+", text)
    } <= known


def test_pages_and_examples_name_existing_options() -> None:
    """As environment variables."""
    files = [path for path in (ROOT / "examples").rglob("*") if path.is_file() and path.suffix not in (".png", ".pyc")]
    texts = [*DOCS.values(), (ROOT / "README.md").read_text(), *(path.read_text(errors="replace") for path in files)]
    named = {name for text in texts for name in re.findall(rf"\b{ENV_PREFIX}([A-Z_]*[A-Z])\b", text)}

    assert {name.lower() for name in named} - {"option"} <= Settings.model_fields.keys()


def test_headers_of_responses_are_described() -> None:
    """Each that the code names for itself, in one of the pages; and none that it does not have."""
    pattern = r"\bX-(?:MLflow|Feedback)-[A-Za-z-]*[A-Za-z]\b"
    code = {name for text in CORE_TEXTS for name in re.findall(f"[\"']({pattern})[\"']", text)}
    said = {name for text in DOCS.values() for name in re.findall(pattern, text)}

    assert len(code) == 3
    assert said == code


def test_rules_for_errors_are_those_of_the_code() -> None:
    """The named ones."""
    rows = re.findall(r"^\| `([\w-]+)` \|", DOCS["errors"], re.MULTILINE)

    assert rows == list(error_rules.READY)


def test_sources_of_ids_are_those_of_the_code() -> None:
    """A row of the page for each place that is read."""
    table = DOCS["identity"].partition("| source | value |")[2].partition("\n\n")[0]

    assert re.findall(r"^\| `(\w+)\.", table, re.MULTILINE) == list(READERS)


def test_fields_of_a_vote_are_described() -> None:
    """Each field of its body."""
    said = DOCS["feedback"].partition("- **The body**")[2].partition("- **Who")[0]

    assert [name for name in Feedback.model_fields if f"`{name}`" not in said] == []


PROTOCOLS = {
    "Chat": "OpenAI",
    "Responses": "OpenAI",
    "Anthropic": "Anthropic",
    "Gemini": "Gemini",
    "Converse": "Bedrock",
    "AgUi": "AG-UI",
    "UiMessage": "Vercel's AI SDK",
    "Ollama": "Ollama",
}
"""Fold of a language model's stream -> whose protocol it is."""


@pytest.mark.parametrize("page", ["streaming", "cost"])
def test_protocols_of_streams_are_named(page: str) -> None:
    """Each that is folded into one message, and no other."""
    part = {"streaming": ("The streams of ", " become one message"), "cost": ("## Supported answers", "\n## ")}[page]
    named = re.sub(r"\s+", " ", DOCS[page].partition(part[0])[2].partition(part[1])[0])

    assert PROTOCOLS.keys() == {fold.__name__ for fold in FOLDS}
    assert [name for name in PROTOCOLS.values() if name not in named] == []
    if page == "streaming":
        said = set(re.split(r", | and ", re.sub(r"\s+", " ", named))) - {"MLflow's `ResponsesAgent`"}  # as OpenAI's
        assert said == set(PROTOCOLS.values())


@pytest.mark.parametrize("module", [name for name in TARGETS if TARGETS[name].endswith((".servers", ".frameworks"))])
def test_servers_and_frameworks_of_run_are_on_its_page(module: str) -> None:
    """Each server and framework that is patched."""
    name = {"werkzeug": "flask run"}.get(module.split(".")[0], module.split(".")[0])

    listed = DOCS["run"].partition("- **Servers**")[2].partition("- **Workers")[0].lower()
    assert name in listed


def test_json_of_the_check_is_described() -> None:
    """Its names, in their order."""
    names = ", ".join(f'"{field.name}"' for field in fields(check.Result))

    assert f'"steps": [{{{names}}}]' in re.sub(r"\s+", " ", DOCS["check"])


def test_fixtures_are_described() -> None:
    """Each that the plugin gives to pytest."""
    functions = [node for node in ast.parse(inspect.getsource(pytest_plugin)).body if isinstance(node, ast.FunctionDef)]
    fixtures = [each.name for each in functions if any("fixture" in ast.unparse(by) for by in each.decorator_list)]

    assert fixtures
    assert [name for name in fixtures if f"`{name}`" not in DOCS["testing"]] == []
