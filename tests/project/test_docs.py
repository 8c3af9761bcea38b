"""The documentation's pages show existing code, which other tests run."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_middleware.cli import command_line
from mlflow_middleware.commands import check
from tests import pictures, reference
from tests.servers import ROOT

pytestmark = pytest.mark.once

HEADINGS = ("share of untraced throughput kept", "CPU added to a request, µs")
"""Of the plot of the benchmark."""

PASSAGE = 24
"""Words that are a passage: a sentence or two. Guides for three frameworks have shorter ones in common."""

PAGES = sorted((ROOT / "docs").glob("*.md"))
"""``README.md`` is checked as well, except for its code, which is shortened."""


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Return the code blocks of these languages."""
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        if language in languages:
            yield text


def commands(page: Path) -> list[str]:
    """Return the lines that use our command line."""
    lines = "".join(blocks(page, "console")).splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ mlflow-middleware ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_is_part_of_an_example(page: Path) -> None:
    """Each paragraph is verbatim in an example that the page names; all examples are run by tests."""
    named = [ROOT / name for name in re.findall(r"`(examples/[\w./]+)`", page.read_text())]
    examples = [file.read_text() for file in named if file.is_file()]

    for block in blocks(page, "python", "js"):
        paragraphs = [f"\n{paragraph.strip(chr(10))}\n" for paragraph in re.split(r"\n\n+(?=\S)", block)]
        assert any(all(each in f"\n{example}" for each in paragraphs) for example in examples), block


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_commands_are_valid(page: Path) -> None:
    """They have only arguments that exist."""
    assert all(command_line().parse_args(shlex.split(line, comments=True)[1:]) for line in commands(page))


@pytest.mark.parametrize("page", reference.PAGES, ids=lambda page: page.stem)
def test_reference_pages_match_the_code(page: Path) -> None:
    """``python -m tests.reference`` writes them: each option and each command is there."""
    assert page.read_text() == reference.PAGES[page]()


def words(page: Path) -> list[str]:
    """Return the words of a page, without its code and the targets of its links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"[\w`'./-]*\w[\w`'./-]*", re.sub(r"\]\([^)]*\)", "]", text).lower())


def test_no_page_repeats_another() -> None:
    """No passage is on two pages, the README among them: one has it, the other a link."""
    pages: dict[tuple[str, ...], set[str]] = {}
    for page in (*PAGES, ROOT / "README.md"):
        found = words(page)
        for start in range(len(found) - PASSAGE):
            pages.setdefault(tuple(found[start : start + PASSAGE]), set()).add(page.stem)

    assert {" ".join(passage): where for passage, where in pages.items() if len(where) > 1} == {}


def test_the_readme_is_short() -> None:
    """It has at most 150 lines; the rest is in the documentation."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_readme_has_the_figures_of_the_documentation() -> None:
    """Of costs, those of requests with two child spans at the gentle rate; of failures, each count of traces."""
    readme, performance, delivery = (
        (ROOT / name).read_text() for name in ("README.md", "docs/performance.md", "docs/delivery.md")
    )
    costs = re.findall(
        r"^\| (FastAPI|Flask|Django) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", readme, re.MULTILINE
    )
    for framework, *shown in costs:
        _, _, table = performance.partition(f"| {framework}, two child spans |")
        rows = re.findall(r"^\| (?!untraced)[^|]+\| [\d.]+ \| (\d+) /", table.split("\n\n")[0], re.MULTILINE)
        assert [each.replace(",", "") for each in shown] == rows

    bad_days = readme.partition("## On bad days")[2].partition("\n## ")[0]
    counts = re.findall(r"[\d,]+ of [\d,]+", bad_days)
    assert (len(costs), len(counts)) == (3, 8)
    assert [each for each in counts if f" {each} " not in delivery] == []


def test_the_page_of_check_shows_its_steps() -> None:
    """All of them, in order and in their format."""
    shown = next(blocks(ROOT / "docs" / "check.md", "console")).splitlines()[1:]

    assert [line[8:24].rstrip() for line in shown] == [name for name, _, _ in check.STEPS]


def test_the_api_page_has_every_name_that_examples_import() -> None:
    """A name is listed by itself, or belongs to a module that is listed without a list of members."""
    page = (ROOT / "docs" / "api.md").read_text()
    listed = dict(re.findall(r"^::: ([\w.]+)(?:\n    options:\n      members: \[(.*)\])?$", page, re.MULTILINE))
    files = [path for path in (ROOT / "examples").rglob("*.py") if "mlflow_middleware" in path.read_text()]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    imported = {
        (node.module, alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlflow_middleware")
        for alias in node.names
    }

    assert imported
    assert [
        f"{module}.{name}"
        for module, name in sorted(imported)
        if f"{module}.{name}" not in listed and (module not in listed or name not in (listed[module] or name))
    ] == []


def test_pages_link_to_existing_files() -> None:
    """Also by the names of examples."""
    for page in (*PAGES, *ROOT.glob("*.md")):
        text = page.read_text()
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
        assert [link for link in links if not (page.parent / link).exists()] == []
        assert [name for name in re.findall(r"`(examples/[\w./]+)`", text) if not (ROOT / name).exists()] == []


def test_pictures_are_as_new_as_their_code() -> None:
    """``python -m tests.screenshots`` retakes them."""
    assert pictures.outdated() == []


def test_the_plot_shows_the_figures_of_its_page() -> None:
    """For each way, it has the throughput kept and the CPU added at the gentle rate, both from the same run."""
    page, plot = ((ROOT / "docs" / name).read_text() for name in ("performance.md", "benchmark.svg"))
    tables = re.findall(r"^\| (\w+, \w+ child spans?) \|.*\n\| ---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    figures: list[str] = []
    for title, rows in tables:
        cells = [[cell.strip().replace("`", "") for cell in row.split("|")[1:4]] for row in rows.splitlines()]
        ways = [(way, kept, cpu.split()[0]) for way, kept, cpu in cells if way != "untraced"]
        figures += [title, *(text for way in ways for text in way)]

    assert len(tables) == 6
    assert [text for text in re.findall(r">([^<\n]+)</text>", plot) if text not in HEADINGS] == figures
