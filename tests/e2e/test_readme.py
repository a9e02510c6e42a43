"""Every Python block and every ``tvm-ffn`` line of the README runs, in order, in a folder that holds ``examples``."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("readme")
    (path / "examples").symlink_to(ROOT / "examples")
    return path


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_block(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile(blocks("python")[number], f"README.md, Python block {number}", "exec"), {})


def test_command_lines(folder: Path) -> None:
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ tvm-ffn ")]
    assert len(lines) >= 5
    program = [sys.executable, "-c", "import sys; from tvm_ffn.cli import main; sys.exit(main())"]
    for line in lines:
        done = subprocess.run(
            [*program, *shlex.split(line)[1:]], cwd=folder, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{line}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
