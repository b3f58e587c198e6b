"""What the README and the docs name exists: commands, files, links."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer.main

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
ROOMS = {face.parent.name for face in (ROOT / "platform" / "didact").glob("*/__init__.py")}
PAGES = sorted({README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")})
CODE = re.compile(r"```[^\n]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
COMMAND = re.compile(r"(?:^|[\s;&|(/])didact ((?:[a-z][a-z-]* ?)+)")
FILE = re.compile(r"(?<![\w/.-])(?:jobs|serve|tune_spaces|studies|benchmarks|docs|tests)/[\w./*-]*[\w*]")
MODULE = re.compile(rf"(?<![\w/.])(?:{'|'.join(sorted(ROOMS))})/[\w/]*\w\.py\b")
TARGET = re.compile(r"(?:^|[\s;&|(])make ([a-z]+)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_of(text: str) -> str:
    """Fenced blocks and inline code, one a line."""
    return "\n".join(block or inline for block, inline in CODE.findall(text))


@cache
def verbs() -> dict[str, set[str]]:
    """Verbs of the program, each with its own verbs where it is a group."""
    from didact.cli import app

    commands = typer.main.get_command(app).commands
    return {name: set(getattr(command, "commands", ())) for name, command in commands.items()}


def unknown_verbs(code: str) -> Iterator[str]:
    """`didact VERB` (and `didact GROUP VERB`) that the program does not have."""
    for words in COMMAND.findall(code):
        verb, *rest = words.split()
        if verb not in verbs():
            yield verb
        elif verbs()[verb] and rest and rest[0] not in verbs()[verb]:
            yield f"{verb} {rest[0]}"


def missing_files(code: str) -> list[str]:
    return [path for path in FILE.findall(code) if not any(ROOT.glob(path))]


def test_readme_shows_the_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    assert list(unknown_verbs(code_of(page.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(TARGET.findall(code_of(page.read_text(encoding="utf-8")))) <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_exist(page: Path) -> None:
    assert missing_files(code_of(page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link and link[0] != "#"]
    assert [link for link in links if not (page.parent / link.split("#")[0]).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_modules_exist(page: Path) -> None:
    names = MODULE.findall(code_of(page.read_text(encoding="utf-8")))
    assert [name for name in names if not (ROOT / "platform" / "didact" / name).exists()] == []


def test_every_room_is_on_the_map() -> None:
    rooms = [face.parent for face in (ROOT / "platform" / "didact").glob("*/**/__init__.py")]
    told = code_of((ROOT / "docs" / "rooms.md").read_text(encoding="utf-8")).splitlines()
    assert {f"{room.name}/" for room in rooms} - set(told) == set()


def test_what_comes_next_does_not_exist_yet() -> None:
    coming = (ROOT / "docs" / "rooms.md").read_text(encoding="utf-8").partition("## Rooms for what comes next")[2]
    rooms = re.findall(r"^\| `([\w/]+)/` \|", coming.partition("## ")[0], re.MULTILINE)
    assert "serving/rollout" in rooms
    assert [room for room in rooms if (ROOT / "platform" / "didact" / room).exists()] == []


def test_wrong_names_would_be_found() -> None:
    page = "Run `didact fly jobs/recipes/demo.yaml`, then\n```bash\n.venv/bin/didact plan jobs/recipes/none.yaml\n```\n"
    assert list(unknown_verbs(code_of(page))) == ["fly"]
    assert missing_files(code_of(page)) == ["jobs/recipes/none.yaml"]
