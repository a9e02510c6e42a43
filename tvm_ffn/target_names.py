"""The names a target may use, from LLVM's and TVM's own lists.

LLVM ends the process on an unknown architecture: only triples of :data:`ARCHITECTURES` may reach it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from tvm_ffn import host

# Options of every kind that make no sense in what a user writes.
_INTERNAL_OPTIONS = {"from_device", "target_device_type"}


class Architecture(NamedTuple):
    """An architecture that can be compiled for."""

    triple: str  # what its bare name means
    compiler: str  # Debian's cross compiler
    package: str  # the Debian package with it


ARCHITECTURES = {
    "x86_64": Architecture("x86_64-linux-gnu", "x86_64-linux-gnu-g++", "g++-x86-64-linux-gnu"),
    "aarch64": Architecture("aarch64-linux-gnu", "aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu"),
}


def supported() -> str:
    """Return what can be compiled for, for error messages."""
    return '"llvm" (this machine), ' + ", ".join(f'"llvm -mtriple={name}"' for name in ARCHITECTURES)


@cache
def option_types() -> dict[str, str]:
    """Return the options of an llvm target with TVM's names of their types: "str", "int", "bool", "Array<str>"."""
    from tvm.target.target import TargetKind

    types = {str(key): str(kind) for key, kind in TargetKind.options_from_name("llvm").items()}
    return {key: kind for key, kind in types.items() if key not in _INTERNAL_OPTIONS}


def known_cpus(architecture: str) -> list[str]:
    """Return LLVM's CPU names for "x86_64" or "aarch64"."""
    from tvm.target import Target
    from tvm.target.codegen import llvm_get_cpu_archlist

    return [
        str(cpu)
        for cpu in llvm_get_cpu_archlist(Target({"kind": "llvm", "mtriple": ARCHITECTURES[architecture].triple}))
    ]


@cache
def known_features(triple: str) -> frozenset[str]:
    """Return the features that any CPU of the architecture has (LLVM lists features by CPU only)."""
    from tvm.target import Target
    from tvm.target.codegen import llvm_get_cpu_features

    cpus = known_cpus(host.architecture(triple))
    return frozenset().union(
        *(llvm_get_cpu_features(Target({"kind": "llvm", "mtriple": triple, "mcpu": c})) for c in cpus)
    )


def llvm_knows_feature(triple: str, name: str) -> bool:
    """Ask LLVM, which also knows features no CPU has; it writes a complaint about those it doesn't know."""
    from tvm.target import Target
    from tvm.target.codegen import llvm_get_cpu_features

    with _silent_stderr():
        return name in llvm_get_cpu_features(Target({"kind": "llvm", "mtriple": triple, "mattr": [f"+{name}"]}))


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
