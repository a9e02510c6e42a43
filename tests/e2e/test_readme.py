"""Every Python block of the README and of docs/ runs, and every ``tvm-ffn`` line of the README.

The blocks of one document run in order and see each other's names, in a folder that holds ``examples``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_blocks(document: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block is imported from a file: TVMScript reads its own source."""
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for number, source in enumerate(blocks(document, "python")):
        path = folder / f"block_{number}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        vars(module).update({name: value for name, value in names.items() if not name.startswith("__")})
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        names = dict(vars(module))


def test_command_lines(folder: Path) -> None:
    console = blocks(ROOT / "README.md", "console")
    lines = [line[2:] for block in console for line in block.splitlines() if line.startswith("$ tvm-ffn ")]
    assert len(lines) >= 5
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # in effect only where the package is not installed
    for line in lines:
        command = [sys.executable, "-m", "tvm_ffn", *shlex.split(line)[1:]]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
