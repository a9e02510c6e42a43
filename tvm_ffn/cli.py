"""The command line: parses and hands over to :mod:`tvm_ffn.commands`; heavy imports wait until a command runs.

Exit codes: 0 ok, 1 internal failure, 2 usage, configuration, target, data or path, 3 an accuracy gate missed, 4 a model
or artefact that is unreadable or not supported, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

from tvm_ffn.errors import FFNError
from tvm_ffn.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = build_parser().parse_args(arguments)
    received: list[int] = []
    try:
        with _stoppable(received):
            from tvm_ffn import commands

            getattr(commands, f"command_{options.command}")(options)
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output is gone (`| head`): say nothing, and nothing more at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (KeyboardInterrupt, Exception) as error:
        return _report(error, received, options.debug)
    return 0


def _report(error: BaseException, received: Sequence[int], debug: bool) -> int:
    """Print one line for an exception (with ``debug`` its traceback) and return the exit code."""
    if debug:
        import traceback

        traceback.print_exception(error)
    # TVM turns an interrupt inside its own code into some other exception: the signals received tell.
    if received or isinstance(error, KeyboardInterrupt):
        message, code = "interrupted", 128 + (received[0] if received else signal.SIGINT)
    elif isinstance(error, FFNError):
        message, code = " ".join(str(error).split()), error.exit_code
    else:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
        message, code = f"internal failure: {text} (--debug shows the traceback)", 1
    print(f"tvm-ffn: error: {message}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _stoppable(received: list[int]) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into KeyboardInterrupt, so that folders are tidied up; note them in ``received``."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="tvm-ffn", description="Ternary factorised CNN inference on TVM.")
    parser.add_argument("--version", action="version", version=f"tvm-ffn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_compile(commands)
    _add_quantize(commands)
    _add_tune(commands)
    _add_verify(commands)

    run = _add(commands, "run", "run a compiled model on the arrays of an .npz file")
    run.add_argument("artefact", metavar="OUT", help="folder with a compiled model")
    run.add_argument("--input", required=True, metavar="X.npz", help="one array for each input, by name")
    run.add_argument("-o", "--output", required=True, metavar="Y.npz", help="where the outputs go, by name")

    inspect = _add(commands, "inspect", "show what became of each layer")
    inspect.add_argument("artefact", metavar="OUT", help="folder with a compiled model")
    inspect.add_argument("--json", action="store_true", help="the report and the manifest as JSON")

    bench = _add(commands, "bench", "median latency of one sample on one thread")
    bench.add_argument("artefact", metavar="OUT", help="folder with a compiled model")
    bench.add_argument("--against", metavar="MODEL.onnx", help="compare with onnxruntime fp32 in the same run")
    bench.add_argument("--repeat", type=_positive, default=30, metavar="N", help="timed runs (default: %(default)s)")
    bench.add_argument("--layers", action="store_true", help="also the time of every kernel")
    bench.add_argument("--json", action="store_true", help="print JSON")

    targets = _add(commands, "targets", "list what can be compiled for")
    targets.add_argument("--cpus", choices=("x86_64", "aarch64"), help="list the CPU names for -mcpu")
    _add(commands, "env", "show versions and what was found on this machine")
    return parser


def _add(commands: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_compile(commands: argparse._SubParsersAction) -> None:
    parser = _add(commands, "compile", "compile an ONNX model")
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the compiled model")
    parser.add_argument(
        "--target", default="llvm", metavar="T", help='for example "llvm -mtriple=aarch64"; default: this machine'
    )
    parser.add_argument(
        "--optimize", choices=("size", "speed"), help="weights as code where it is faster (default), or packed"
    )
    parser.add_argument("--code-bytes", type=float, metavar="R", help="with speed: all weights, at most, over int8's")
    parser.add_argument(
        "--compress",
        action=argparse.BooleanOptionalAction,
        help="store the library as bzip2, which the first run unpacks; default: where weights are code",
    )
    parser.add_argument("--plan", metavar="PLAN.json", help="settings of all layers, as `quantize` wrote them")
    parser.add_argument("--tuning-dir", metavar="D", help="decisions that `tune` found for this target")
    _add_settings(parser)


def _add_tune(commands: argparse._SubParsersAction) -> None:
    parser = _add(commands, "tune", "measure kernels for the layers of a model and keep the best decisions")
    parser.add_argument("model", metavar="MODEL.onnx|OUT", help="a model, or the folder of a compiled one")
    parser.add_argument("--work-dir", required=True, metavar="D", help="records and decisions, of one target; resumed")
    parser.add_argument("--target", metavar="T", help="default: this machine, or what OUT was compiled for")
    parser.add_argument("--trials", type=_positive, default=64, metavar="N", help="of each kind of layer (%(default)s)")
    parser.add_argument("--time-budget", type=float, metavar="S", help="seconds of search")
    parser.add_argument("--rpc-tracker", metavar="HOST:PORT", help="measure on boards that TVM's RPC tracker knows")
    parser.add_argument("--rpc-key", metavar="K", help="the key these boards registered under")
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="of a kernel, here (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the search (%(default)s)")
    parser.add_argument("--optimize", choices=("size", "speed"), help="as for compile")
    parser.add_argument("--code-bytes", type=float, metavar="R", help="as for compile")
    parser.add_argument("--config", metavar="FILE.json", help="as for compile")


def _add_quantize(commands: argparse._SubParsersAction) -> None:
    parser = _add(commands, "quantize", "plan and solve the layers of an ONNX model without making code")
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("-o", "--output", metavar="PLAN.json", help="where the plan goes, to be edited and compiled")
    _add_settings(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Settings of the factorisation, calibration data and the preprocessing of images."""
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--max-drop", type=float, metavar="P", help="budget: points of top-1 (default: 1); exit with 3 if it is missed"
    )
    budget.add_argument("--adds", type=float, metavar="A", help="budget: digits executed a multiply-accumulate")
    budget.add_argument("--bytes", type=float, metavar="B", help="budget: bytes of packed weights, as a part of int8's")
    parser.add_argument("--method", choices=("planes", "response", "sdd"), help="how weights are factorised")
    parser.add_argument("--penalty", type=float, metavar="P", help="planes: one price of a digit for all layers")
    parser.add_argument(
        "--rank-ratio", type=float, metavar="R", help="response, sdd: ternary terms k / min(m, n) (default: 1.5)"
    )
    parser.add_argument("--config", metavar="FILE.json", help="all settings, also of single layers")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--calibration", metavar="PATH", help="unlabelled data: a folder of images or an .npz file")
    source.add_argument(
        "--synthetic-calibration", action="store_true", help="calibrate on noise: for tests of speed, not accuracy"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="use the first N calibration samples")
    images = parser.add_argument_group("preprocessing of images (default: torchvision's for ImageNet)")
    images.add_argument("--image-size", type=_size, metavar="S", help="224, or height x width as 240x320")
    images.add_argument("--mean", type=float, nargs="+", metavar="M", help="per channel, of values scaled to 0..1")
    images.add_argument("--std", type=float, nargs="+", metavar="S", help="per channel")
    images.add_argument("--layout", choices=("NCHW", "NHWC"))
    images.add_argument("--preprocess", metavar="FILE.json", help="the same as JSON; options go before")


def _add_verify(commands: argparse._SubParsersAction) -> None:
    parser = _add(commands, "verify", "compare a compiled model with its fp32 original")
    parser.add_argument("artefact", metavar="OUT", help="folder with a compiled model")
    parser.add_argument("--against", required=True, metavar="MODEL.onnx", help="the original")
    parser.add_argument("--data", required=True, metavar="PATH", help="a folder of images or an .npz file")
    parser.add_argument("--labels", metavar="CSV", help="class numbers: columns 'label' and, for images, 'file'")
    parser.add_argument("--limit", type=_positive, metavar="N", help="use the first N samples")
    parser.add_argument("--max-drop", type=float, metavar="P", help="exit with 3 if more top-1 points are lost")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return _positive(height), _positive(width or height)


if __name__ == "__main__":
    sys.exit(main())
