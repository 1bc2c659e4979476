"""The examples and the Python of both READMEs work as they stand, against a demo."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PATIENCE, Server, until

import tapefeed

PACKAGE = Path(__file__).parents[1]
REPOSITORY = PACKAGE.parents[1]
# The address in the READMEs.
ADDRESS = "http://127.0.0.1:50051"


def snippets(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


SNIPPETS = [
    pytest.param(snippet, id=f"{path.parent.name}-{index}")
    for path in (PACKAGE / "README.md", REPOSITORY / "README.md")
    for index, snippet in enumerate(snippets(path))
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = Server(tmp_path_factory.mktemp("demo")).start(command="demo")
    with tapefeed.Client(server.address) as client:
        until(lambda: len(list(client.instruments())) == 6)
    yield server.address
    server.end(signal.SIGTERM)


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def test_there_are_snippets_in_both_readmes() -> None:
    assert len(snippets(PACKAGE / "README.md")) >= 5
    assert len(snippets(REPOSITORY / "README.md")) >= 1


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_python_of_a_readme_works(demo: str, tmp_path: Path, snippet: str) -> None:
    assert ADDRESS in snippet
    (tmp_path / "snippet.py").write_text(snippet.replace(ADDRESS, demo))
    assert run(tmp_path, "snippet.py")


@pytest.mark.parametrize("example", sorted((PACKAGE / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_example_works(demo: str, tmp_path: Path, example: Path) -> None:
    (tmp_path / "trades.csv").write_text(
        f"venue,symbol,time_ms,price,quantity\nXETRA,{example.stem},1723161255342,195.52,10\n"
    )
    arguments = {
        "follow": ["AAPL", "cursor.txt", "5"],
        "history": ["AAPL"],
        "import_file": ["trades.csv"],
        "publish": [],
        "watch_async": ["20"],
    }[example.stem]
    printed = run(tmp_path, str(example), demo, *arguments)
    assert printed
    if example.stem == "follow":
        again = run(tmp_path, str(example), demo, *arguments)
        assert not set(again.splitlines()) & set(printed.splitlines()), "a second run goes on"
    if example.stem == "publish":
        assert "2024-08-08T23:54:15.342000789Z 160.5" in printed
