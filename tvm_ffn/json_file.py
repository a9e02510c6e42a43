"""JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvm_ffn.atomic import write_file
from tvm_ffn.errors import ConfigError


def read_object(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """Read the JSON object that holds ``what``; a file that is missing or holds something else is a ConfigError."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"cannot read the {what} {os.fspath(path)}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"the {what} {os.fspath(path)} must be a JSON object")
    return values


def write_json(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write a JSON object, complete or not at all; an OutputError where that fails."""
    text = json.dumps(values, indent=1) + "\n"

    def write(place: Path) -> None:
        place.write_text(text, encoding="utf-8")

    write_file(Path(path), write)
