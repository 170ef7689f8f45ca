"""README and docs are true: their Python runs, their commands parse, what they name exists.

Not tested here: that prose describes what the code does, and that the pictures show what they say.
"""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer
import yaml

from rigs.cli import app
from rigs.interchange import read_manifest
from rigs.verify import BOUNDS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("capture", "calibration", "rigs")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S)
INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
WINDOWS = re.compile(r"^\.venv\\Scripts\\")
FILE_IN_REPOSITORY = re.compile(r"(?:capture|calibration|rigs|configs|tests|docs)(?:/[\w.{},-]+)+/?")
DOTTED = re.compile(r"(?:capture|calibration|rigs)(?:\.\w+)+")


def every_page(function):
    return pytest.mark.parametrize("page", PAGES, ids=NAMES)(function)


def fences(text):
    return [(match["language"], match["body"], match.start("body")) for match in FENCE.finditer(text)]


def inline(text):
    """Code spans outside the fences, each on one line."""
    return [" ".join(span.split()) for span in INLINE.findall(FENCE.sub("", text))]


def python_of(text):
    """The page with all but its Python made blank, so that a traceback names the page's own lines."""
    out = []
    for language, body, start in fences(text):
        if language == "python":
            out += [""] * (text[:start].count("\n") - len(out)) + body.splitlines()
    return "\n".join(out)


# ---------------------------------------------------------------- what runs


@pytest.mark.parametrize(
    "page", [page for page in PAGES if python_of(page.read_text("utf-8"))], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs(page, tmp_path):
    """In a folder that holds the configs and nothing else, as in a clone before any command."""
    text = page.read_text("utf-8")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    script = tmp_path / f"{page.stem}.py"
    script.write_text(python_of(text), "utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "utf8", script.name],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, f"{page.name}:\n{done.stderr}"
    if page.name == "README.md":
        shown = next(
            body for language, body, start in fences(text) if start > text.index("```python") and not language
        )
        assert figures_off(done.stdout) == figures_off(shown)
        assert close(done.stdout, shown)


def figures_off(text):
    return re.sub(r"\d+", "0", text.strip())


def close(found, shown):
    """Every number within 1 % of the one that is shown, or within a unit of its last two digits."""
    pairs = zip(re.findall(r"\d+\.\d+", found), re.findall(r"\d+\.\d+", shown), strict=True)
    return all(abs(float(a) - float(b)) < 0.01 * float(b) + 0.1 for a, b in pairs)


def test_the_example_of_the_readme_has_ten_lines():
    text = python_of((ROOT / "README.md").read_text("utf-8"))
    assert len([line for line in text.splitlines() if line.strip()]) <= 10


# ---------------------------------------------------------------- what is named


@every_page
def test_every_relative_link_leads_somewhere(page):
    for target in LINK.findall(page.read_text("utf-8")):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            assert not anchor, f"{target}: anchors are not checked: leave it out"
            assert (page.parent / path).exists(), target


@every_page
def test_every_path_in_the_repository_exists(page):
    for span in inline(page.read_text("utf-8")):
        if FILE_IN_REPOSITORY.fullmatch(span) and span not in NOT_THERE:
            assert (ROOT / span).exists(), span


NOT_THERE = {"capture/drivers/acme.py"}
"""What a reader is asked to write."""


@every_page
def test_every_dotted_name_exists(page):
    for span in inline(page.read_text("utf-8")):
        if DOTTED.fullmatch(span) and not (ROOT / span).exists():
            resolve(span)


def resolve(name):
    """The module, class or function of a dotted name."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, "model_fields", {}).get(part) or getattr(found, part)
        return found
    raise AssertionError(name)


@every_page
def test_every_make_target_exists(page):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    text = page.read_text("utf-8")
    lines = [line for _, body, _ in fences(text) for line in body.splitlines()]
    for words in (line.split() for line in [*inline(text), *lines]):
        if words[:2] == ["make", "-C"]:
            assert (ROOT / words[2] / "Makefile").exists(), words
        elif words and words[0] == "make":
            assert words[1] in targets, words


@every_page
def test_yaml_is_yaml_and_tables_are_manifests(page, tmp_path):
    for language, body, _ in fences(page.read_text("utf-8")):
        if language == "yaml":
            yaml.safe_load(body)
        if body.startswith("file,"):
            (tmp_path / "manifest.csv").write_text(body)
            for line in body.splitlines()[1:]:
                (tmp_path / line.split(",")[0]).touch()
            assert len(read_manifest(tmp_path / "manifest.csv")) == len(body.splitlines()) - 1


# ---------------------------------------------------------------- commands


@cache
def commands():
    """Every leaf of ``gnomon`` with its words, its callback taken away: parsing is all that is left."""
    root = typer.main.get_command(app)

    def walk(command, words):
        for name, child in command.commands.items():
            if hasattr(child, "commands"):
                yield from walk(child, (*words, name))
            else:
                child.callback = lambda **_: None
                yield (*words, name), child

    return root, dict(walk(root, ()))


def gnomon_lines(text):
    """Whole command lines of the fences."""
    for language, body, _ in fences(text):
        if language != "python":
            for line in body.replace("\\\n", " ").splitlines():
                line = WINDOWS.sub("", line.strip())
                if line.startswith("gnomon "):
                    yield line


def split(line):
    """Words of a command line, quotes understood, backslashes left alone."""
    return [word.strip("'\"") for word in re.findall(r"'[^']*'|\"[^\"]*\"|\S+", line)]


def exit_code(root, line):
    with pytest.raises(SystemExit) as left:
        root.main(split(line)[1:], prog_name="gnomon")
    return left.value.code


@every_page
def test_every_command_line_parses(page):
    root, _ = commands()
    for line in gnomon_lines(page.read_text("utf-8")):
        assert exit_code(root, line) == 0, line


@every_page
def test_every_command_in_prose_exists(page):
    """Its options too; what is written in capitals or brackets stands for something else."""
    _, leaves = commands()
    groups = {words[:count] for words in leaves for count in range(1, len(words))}
    for span in inline(page.read_text("utf-8")):
        words = split(span)
        if words[0] != "gnomon" or words[1:] in ([], ["--help"]):
            continue
        path = next((tuple(words[1 : 1 + n]) for n in (2, 1) if tuple(words[1 : 1 + n]) in leaves), None)
        if path is None:
            assert tuple(words[1:]) in groups, span
            continue
        known = {option for parameter in leaves[path].params for option in parameter.opts}
        for word in words[1 + len(path) :]:
            if word.startswith("-"):
                assert word.strip("[]") in known, span


@every_page
def test_every_option_in_prose_belongs_to_a_command(page):
    _, leaves = commands()
    known = {option for leaf in leaves.values() for parameter in leaf.params for option in parameter.opts}
    for span in inline(page.read_text("utf-8")):
        if span.startswith("--"):
            assert span.split()[0] in known | {"--help"}, span


def test_a_wrong_command_line_is_noticed():
    root, _ = commands()
    for line in ("gnomon capture --simulat x", "gnomon calibrate lense x", "gnomon merge x"):
        assert exit_code(root, line) == 2, line


# ---------------------------------------------------------------- the README


def test_the_readme_opens_with_the_two_commands():
    _, body, _ = fences((ROOT / "README.md").read_text("utf-8"))[0]
    assert body.split() == ["make", "demo", "make", "test"]


def test_the_readme_table_has_every_bound_and_meets_it():
    """Rows of measured figures: as many as the truth file has bounds, the same bounds, and none missed."""
    bounds = yaml.safe_load((ROOT / "configs/truths/dome.yaml").read_text("utf-8"))["bounds"]
    assert set(bounds) <= set(BOUNDS)
    rows = re.findall(
        r"^\|[^|]+\| ([\d.]+)([^|]*)\| ([≤≥]) ([\d.]+)", (ROOT / "README.md").read_text("utf-8"), re.M
    )
    assert sorted(float(bound) for *_, bound in rows) == sorted(float(bound) for bound in bounds.values())
    for value, _, sign, bound in rows:
        assert (float(value) <= float(bound)) == (sign == "≤"), (value, bound)


def test_pictures_are_small_and_used():
    text = "".join(page.read_text("utf-8") for page in PAGES)
    pictures = list((ROOT / "docs/pictures").glob("*.png"))
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size <= 400_000, picture.name
        assert picture.name in text, picture.name


def test_the_changelog_names_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)


def test_decisions_are_numbered_without_gaps_and_say_why():
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text("utf-8")
        assert text.startswith(f"# {int(page.name[:4])}. "), page.name
        assert "**Decision.**" in text, page.name
        assert "**Why.**" in text, page.name


# ---------------------------------------------------------------- docstrings


def public(tree, name):
    """Public modules, classes, functions and methods of a parsed module, each with its dotted name."""
    yield name, tree
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_") or any(
                getattr(d, "id", "") == "overload" for d in node.decorator_list
            ):
                continue
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{name}.{node.name}")
            else:
                yield f"{name}.{node.name}", node


@cache
def modules():
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found.append((name, ast.parse(path.read_text("utf-8"))))
    return found


def test_everything_public_has_a_docstring():
    found = [(name, node) for module, tree in modules() for name, node in public(tree, module)]
    assert len(found) > 200
    missing = [name for name, node in found if not (ast.get_docstring(node) or "").strip()]
    assert not missing, missing


def test_every_export_exists_and_is_sorted():
    for module, tree in modules():
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                names = ast.literal_eval(node.value)
                exported = importlib.import_module(module)
                assert not [name for name in names if not hasattr(exported, name)], module
