"""The Markdown pages are true: what they link to and name exists, and each of them is found from the README."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import click
import pytest

from ops.cli import cli

ROOT = Path(__file__).parents[2]


def pages() -> list[Path]:
    """Every page of the repository; folders such as .venv and node_modules are not part of it."""
    found = (p.relative_to(ROOT).parts for p in ROOT.rglob("*.md"))
    return sorted(
        ROOT.joinpath(*parts) for parts in found if not any(p.startswith((".", "node_modules")) for p in parts)
    )


PAGES = pages()
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[tuple[Path, str]]:
    """The file and the anchor of every relative link, pictures included."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    parts = [link.partition("#") for link in found if "://" not in link and not link.startswith("mailto:")]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in parts]


@cache
def anchors(page: Path) -> frozenset[str]:
    """How a browser names the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def spans(page: Path) -> set[str]:
    """Everything between backticks."""
    return set(re.findall(r"`([^`\n]+)`", prose(page)))


@cache
def names_in(path: Path) -> frozenset[str]:
    """The names of the tests in a file, without running it."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, functions))


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file or folder that exists, and to a heading that its page has."""
    for target, anchor in links(page):
        assert target.exists(), f"{page.relative_to(ROOT)} links to {target}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.relative_to(ROOT)} links to {target.name}#{anchor}"


@each_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    """`path/to/file.py` and `folder/`, from the root or from the page; `file.py` somewhere below the page's folder."""
    for span in spans(page):
        path = span.partition("::")[0]
        if re.fullmatch(r"\w[\w.-]*(/[\w.-]+)+\.[a-z]+|(\w[\w-]*/)+", path):
            assert (ROOT / path).exists() or (page.parent / path).exists(), f"{page.relative_to(ROOT)}: {path}"
        elif re.fullmatch(r"\w+\.py", path):
            assert any(page.parent.rglob(path)), f"{page.relative_to(ROOT)}: {path}"


@each_page
def test_every_test_that_is_named_exists(page: Path) -> None:
    """`tests/core/test_ids.py::test_name`; a test that was renamed has to be renamed here too."""
    for span in spans(page):
        if re.fullmatch(r"[\w/.-]+\.py::\w+", span):
            path, _, name = span.partition("::")
            assert name in names_in(ROOT / path), f"{page.relative_to(ROOT)}: {span}"


@each_page
def test_every_command_that_is_named_exists(page: Path) -> None:
    """`make target` and `horae command`."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for span in spans(page):
        if found := re.match(r"make ([a-z-]+)", span):
            assert found[1] in targets, f"{page.relative_to(ROOT)}: {span}"
        if found := re.match(r"horae ([a-z]+)", span):
            assert found[1] in cli.list_commands(click.Context(cli)), f"{page.relative_to(ROOT)}: {span}"


def test_every_page_is_found_from_the_readme() -> None:
    """By links, one page after the other."""
    found = {ROOT / "README.md"}
    left = list(found)
    while left:
        page = left.pop()
        fresh = {target for target, _ in links(page) if target.suffix == ".md"} - found
        found |= fresh
        left += fresh
    assert [str(p.relative_to(ROOT)) for p in PAGES if p not in found] == []


def test_no_text_names_a_page_of_elsewhere() -> None:
    """The first design and its sister pages are not part of the repository; `cluster/README.md` is the design."""
    names = re.compile(r"\b(DES" + r"IGN|INTER" + r"FACE)\b")
    sources = [p for package in ("api", "cluster", "config", "ops", "tests") for p in (ROOT / package).rglob("*.py")]
    assert [str(p.relative_to(ROOT)) for p in [*PAGES, *sources] if names.search(p.read_text())] == []
