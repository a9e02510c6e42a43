"""TVM's tensor intrinsics without the wait.

MetaSchedule imports them. They call ``inspect.stack`` hundreds of times, which reads source files for lines that nobody
looks at: 15 seconds, without them 2.
"""

from __future__ import annotations

import inspect
import sys
from unittest import mock


def import_intrinsics() -> None:
    """Import them."""
    with mock.patch.object(inspect, "stack", _stack):
        import tvm.s_tir.tensor_intrin  # noqa: F401


def _stack(context: int = 1) -> list[inspect.FrameInfo]:
    frames, frame = [], sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        frames.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
        frame = frame.f_back  # type: ignore[assignment]
    return frames
