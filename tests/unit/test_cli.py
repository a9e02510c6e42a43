"""The command line: exit codes, short messages, quick help."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from tvm_ffn import cli, commands
from tvm_ffn.errors import AccuracyError, DataError
from tvm_ffn.version import __version__

ROOT = Path(__file__).parents[2]


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [[], ["compile"], ["verify"], ["bench"]])
def test_help_is_quick(command: list[str]) -> None:
    start = time.perf_counter()
    done = run_python("-m", "tvm_ffn", *command, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: tvm-ffn")
    assert time.perf_counter() - start < 1.0


def test_import_is_light() -> None:
    script = "import sys, tvm_ffn; assert not {'tvm', 'numpy', 'onnx', 'PIL'} & set(sys.modules); print(dir(tvm_ffn))"
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr
    assert {"compile", "load", "factorize", "FFNConfig"} <= set(eval(done.stdout))


def test_factorize_stays_a_function() -> None:
    script = "import tvm_ffn, tvm_ffn.factorize, tvm_ffn.factorize.native; assert callable(tvm_ffn.factorize)"
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr


def test_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert run_python("-m", "tvm_ffn", "--version").stdout.strip() == f"tvm-ffn {__version__}"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["compilee"],
        ["compile", "model.onnx"],
        ["compile", "m.onnx", "-o", "out", "--calibration", "a", "--synthetic-calibration"],
        ["compile", "m.onnx", "-o", "out", "--limit", "0"],
        ["compile", "m.onnx", "-o", "out", "--image-size", "big"],
        ["verify", "out", "--data", "x"],
        ["bench", "out", "--repeat", "-1"],
    ],
)
def test_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: tvm-ffn" in capsys.readouterr().err


def fails(arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("tvm-ffn: error: ") and message in captured.err
    assert captured.err.count("\n") == 1


def test_short_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, out = tmp_path / "text.onnx", str(tmp_path / "out")
    text.write_text("hello")
    common = ["compile", str(text), "--synthetic-calibration"]
    fails([*common, "-o", out, "--target", "cuda"], 2, "not there yet", capsys)
    fails([*common, "-o", out, "--target", "llvm -mcpu=haswel"], 2, "'haswell'", capsys)
    fails([*common, "-o", out, "--rank-ratio", "-1"], 2, "rank_ratio", capsys)
    fails([*common, "-o", out, "--config", str(text)], 2, "cannot read the configuration", capsys)
    fails([*common, "-o", "/proc/out"], 2, "cannot write", capsys)
    fails([*common, "-o", str(text)], 2, "is a file", capsys)
    fails(["inspect", out], 2, "no such folder", capsys)
    fails(["inspect", str(tmp_path)], 4, "not a compiled model", capsys)
    fails(["run", str(tmp_path), "--input", "x.npz", "-o", str(text / "y.npz")], 2, "is not a folder", capsys)
    assert {entry.name for entry in tmp_path.iterdir()} == {"text.onnx"}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("two\nlines"), 2, "two lines"),
        (AccuracyError("dropped"), 3, "dropped"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("by zero\nC++ stack"), 1, "ZeroDivisionError: by zero (--debug shows the traceback)"),
        (RuntimeError(), 1, "RuntimeError: no message"),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(options: object) -> None:
        raise error

    monkeypatch.setattr(commands, "command_inspect", command)
    fails(["inspect", "out"], code, message, capsys)
    assert cli.main(["inspect", "out", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_that_tvm_turned_into_another_exception(
    number: int, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(options: object) -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise RuntimeError from None

    before = signal.getsignal(number)
    monkeypatch.setattr(commands, "command_inspect", command)
    fails(["inspect", "out"], code, "interrupted", capsys)
    assert signal.getsignal(number) is before


def test_closed_pipe_is_silent() -> None:
    script = f"{sys.executable} -m tvm_ffn targets --cpus x86_64 | head -1; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[1] in ("0", "141") and "Traceback" not in done.stderr


def test_targets_and_env(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["targets"]) == 0
    assert '"llvm -mtriple=aarch64"' in capsys.readouterr().out
    assert cli.main(["targets", "--cpus", "aarch64"]) == 0
    assert "cortex-a72" in capsys.readouterr().out.split()
    assert cli.main(["env"]) == 0
    assert "native solver" in capsys.readouterr().out


def test_inspect_needs_json_with_layers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from tvm_ffn import runtime
    from tvm_ffn.report import Report

    stub = SimpleNamespace(report=Report((), "net", "llvm"), manifest=SimpleNamespace(to_json=dict))
    monkeypatch.setattr(runtime, "load", lambda path: stub)
    assert cli.main(["inspect", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"] == []
