"""What holds for the repository as a whole: nothing of anybody's machine in it, and pages that speak of what exists."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import zaya
from zaya.cli import ACTIONS, COMMANDS, command_parser

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Written so that they do not match themselves.
OF_SOMEBODYS_MACHINE = re.compile(r"/roo[t]/|/hom[e]/\w+|/User[s]/\w+|C:\\User[s]|pypi\.org|files\.pythonhosted\.org")
FOLDERS = "src|tests|docs|benchmarks|recipes|examples"
PATH_IN_TEXT = re.compile(rf"(?<![\w./])(?:{FOLDERS})/[\w./-]*\w\.(?:py|toml|json|md|sh)\b")
LINK = re.compile(r"\]\(([^)\s]+)\)")
SHELL_BLOCK = re.compile(r"^```(?:sh|bash|shell|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def files() -> list[Path]:
    """What git tracks, and what it would if asked to add everything."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def pages() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def shell_lines(text: str) -> Iterator[list[str]]:
    """The commands in the shell blocks of a page, split into words, up to a pipe."""
    for block in SHELL_BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.strip().removeprefix("$ "), comments=True)
            yield words[: next((i for i, word in enumerate(words) if word in ("|", ">", "&&", ";")), len(words))]


FLAG = re.compile(r"(?<!\w)--?[a-z][\w-]*")


def command_problem(words: list[str]) -> str | None:
    """What is wrong with a documented call of zaya or make; None for other programs."""
    if words[1:3] == ["-m", "zaya"]:
        words = words[2:]
    if not words or Path(words[0]).name not in ("zaya", "make"):
        return None
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        missing = [word for word in words[1:] if "=" not in word and word not in targets]
        return f"make has no target {missing}" if missing else None
    flags = [word.partition("=")[0] for word in words[1:] if word.startswith("-")]
    command = next((word for word in words[1:] if not word.startswith("-")), None)
    if command is None:
        known = {"--help", "--version"}
    elif command in COMMANDS:
        command = action if (action := " ".join(words[1:3])) in ACTIONS else command
        parser = command_parser(command)
        actions = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        named = [choices[word] for choices in actions for word in words if word in choices]
        known = {flag for each in (parser, *named) for flag in FLAG.findall(each.format_help())}
    else:
        return f"zaya has no command {command}"
    missing = [flag for flag in flags if flag not in known]
    return f"zaya {command} has no {missing}" if missing else None


def test_no_file_carries_paths_of_a_machine_or_hosts_of_a_registry():
    found = []
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # images and fixtures in bytes
        found += [f"{name_of(path)}: {match}" for match in OF_SOMEBODYS_MACHINE.findall(text)]
    assert found == []


@pytest.mark.parametrize("text", ["/root" + "/.cache", "see /home" + "/ann/x", "https://pypi" + ".org/simple"])
def test_the_pattern_of_machines_finds_them(text: str):
    assert OF_SOMEBODYS_MACHINE.search(text)


@pytest.mark.parametrize("page", [*pages(), ROOT / "Makefile", ROOT / ".ci" / "run"], ids=name_of)
def test_named_files_exist(page: Path):
    named = sorted(set(PATH_IN_TEXT.findall(page.read_text(encoding="utf-8"))))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_relative_links_resolve(page: Path):
    targets = [target.partition("#")[0] for target in LINK.findall(page.read_text(encoding="utf-8"))]
    relative = [target for target in targets if target and not re.match(r"[a-z]+:", target)]
    assert [target for target in relative if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_documented_commands_exist(page: Path):
    problems = [command_problem(words) for words in shell_lines(page.read_text(encoding="utf-8"))]
    assert [problem for problem in problems if problem] == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("zaya config micro num_layers=8 | head", None),
        ("$ .venv/bin/zaya --version", None),
        ("python -m zaya config --help", None),
        ("make test TORCH=cuda && ls", None),
        ("pip install openzaya", None),
        ("zaya reward train --config a.toml", None),
        ("zaya reward score --config a.toml", "zaya reward has no ['--config']"),
        ("zaya confg", "zaya has no command confg"),
        ("python -m zaya config --depth 3", "zaya config has no ['--depth']"),
        ("make tests", "make has no target ['tests']"),
    ],
)
def test_documented_commands_are_understood(line: str, problem: str | None):
    (words,) = shell_lines(f"text\n\n```sh\n{line}\n```\n")
    assert command_problem(words) == problem


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for group in (PROJECT["dependencies"], *extras) for text in group]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_the_pinned_versions_satisfy_the_declared_bounds():
    wanted = {canonicalize_name(r.name): r for r in requirements()}
    assert set(wanted) == set(pins())
    assert [f"{r} is pinned at {pins()[name]}" for name, r in wanted.items() if pins()[name] not in r.specifier] == []


def test_every_dependency_is_named_with_its_licence():
    named = re.findall(r"^  (\S+)\s+\S", (ROOT / "NOTICE").read_text(), re.MULTILINE)
    assert [r.name for r in requirements() if r.name not in named] == []


def test_one_version_everywhere():
    assert PROJECT["version"] == zaya.__version__
    assert f"## {zaya.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"TORCH_VERSION := {pins()['torch']}\n" in (ROOT / "Makefile").read_text()


def test_hooks_run_what_is_installed_here():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"repo: (\S+)", text)) == {"local"}
