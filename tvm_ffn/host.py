"""What this machine's processor is, without a compiler library: needed to refuse foreign artefacts at run time."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

# The features generated code can depend on: LLVM's name -> name in /proc/cpuinfo.
_SAME_NAME = (
    *("ssse3", "avx", "avx2", "fma", "f16c", "bmi2", "gfni", "popcnt", "movbe"),
    *("sse4a", "fma4", "xop", "tbm"),  # AMD's own
    *("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512vbmi"),
)
X86_FEATURES = {name: name for name in _SAME_NAME} | {
    "sse3": "pni",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "bmi": "bmi1",
    "lzcnt": "abm",
    "avxvnni": "avx_vnni",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
    "amx-tile": "amx_tile",
    "amx-int8": "amx_int8",
}
AARCH64_FEATURES = {
    "neon": "asimd",
    "dotprod": "asimddp",
    "fullfp16": "asimdhp",
    "lse": "atomics",
    "i8mm": "i8mm",
    "sve": "sve",
    "sve2": "sve2",
    "bf16": "bf16",
}
FEATURES = {"x86_64": X86_FEATURES, "aarch64": AARCH64_FEATURES}

_ALIASES = {"amd64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64"}


def cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def architecture(triple: str) -> str:
    """Return the architecture of an LLVM triple (or of ``platform.machine()``): "x86_64", "aarch64", ..."""
    name = triple.split("-linux")[0].split("-unknown")[0].lower()
    name = name if name in _ALIASES else name.split("-")[0]
    return _ALIASES.get(name, name)


def machine() -> str:
    """Return the architecture of this machine."""
    return architecture(platform.machine())


@cache
def _cpu_flags() -> frozenset[str] | None:
    """Return the processor's flags, or None where the system doesn't tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return None


def missing_features(features: Iterable[str]) -> list[str]:
    """Return those of ``features`` (LLVM's names) that this processor lacks; empty where that is unknown."""
    flags, names = _cpu_flags(), FEATURES.get(machine(), {})
    if flags is None:
        return []
    return [feature for feature in features if names.get(feature, feature) not in flags]
