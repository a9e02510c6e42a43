"""Targets: read what a user writes, check it against LLVM's own lists, find the linker.

TVM 0.27 takes dicts and tags only, accepts any ``mcpu`` (and then generates generic code), and an unknown
architecture ends the process inside LLVM. So the legacy string form is parsed here, and every name is checked
before TVM sees it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from tvm_ffn import host
from tvm_ffn.errors import TargetError
from tvm_ffn.suggest import did_you_mean
from tvm_ffn.target_names import (
    ARCHITECTURES,
    known_cpus,
    known_features,
    llvm_knows_feature,
    option_types,
    supported,
)

if TYPE_CHECKING:
    import tvm.target


_PLANNED_KINDS = ("cuda",)
CORES_OF_A_DEVICE = 4


def parse_target(target: str | Mapping[str, Any] | tvm.target.Target) -> tvm.target.Target:
    """Return a checked TVM target.

    Takes the legacy string form ("llvm -mtriple=aarch64 -mcpu=cortex-a72 -mattr=+neon"), a bare triple, a dict, a TVM
    tag ("raspberry-pi/4b-aarch64") or a ``tvm.target.Target``. "llvm" without a triple and a CPU, and ``-mcpu=native``,
    mean this machine; a CPU that only another architecture has selects that architecture.
    Anything unknown or misspelt is a TargetError that names near matches.
    """
    from tvm.target import Target

    if isinstance(target, Target):
        options = _exported(target)
    elif isinstance(target, str):
        options = _parse_string(target)
    elif isinstance(target, Mapping):
        options = {str(key): value for key, value in target.items()}
        if "tag" in options and "kind" not in options:
            options = {**_from_tag(str(options.pop("tag"))), **options}
    else:
        raise TargetError(f"a target is a string, a dict or a tvm.target.Target, not {type(target).__name__}")
    _check_kind(options)
    _check_options(options)
    _settle_cpu(options)
    _check_features(options)
    try:
        return Target(options)
    except (TypeError, ValueError) as error:
        raise TargetError(f"TVM refuses the target {options}: {str(error).splitlines()[0]}") from error


def target_dict(target: tvm.target.Target) -> dict[str, Any]:
    """Return the target as a JSON-able dict, without the features TVM derives."""
    return _exported(target)


def triple_of(target: tvm.target.Target) -> str:
    """Return the LLVM triple of a parsed target."""
    return str(target.attrs["mtriple"])


def architecture(target: tvm.target.Target) -> str:
    """Return "x86_64" or "aarch64"."""
    return host.architecture(triple_of(target))


def required_features(target: tvm.target.Target) -> tuple[str, ...]:
    """Return the CPU features (LLVM's names) that code for ``target`` may use beyond its architecture's baseline."""
    from tvm.target.codegen import llvm_get_cpu_features

    enabled = llvm_get_cpu_features(target)
    return tuple(name for name in host.FEATURES.get(host.architecture(triple_of(target)), ()) if name in enabled)


def vector_bytes(target: tvm.target.Target) -> int:
    """Return the width in bytes of the target's integer vectors: 64 (AVX-512BW), 32 (AVX2) or 16 (SSE, NEON)."""
    features = required_features(target)
    return 64 if "avx512bw" in features else 32 if "avx2" in features else 16


def vector_registers(target: tvm.target.Target) -> int:
    """Return the number of vector registers: 32 (AVX-512, AArch64) or 16."""
    wide = vector_bytes(target) == 64 or host.architecture(triple_of(target)) == "aarch64"
    return 32 if wide else 16


def threads(target: tvm.target.Target) -> int:
    """Return how many threads code for ``target`` should keep busy: its ``num-cores``, else the cores that this process
    may use if it runs here, else 4."""
    cores = target_dict(target).get("num-cores")
    if cores is not None:
        return int(cores)
    return len(os.sched_getaffinity(0)) if runs_here(target) else CORES_OF_A_DEVICE


def with_threads(target: tvm.target.Target, count: int) -> tvm.target.Target:
    """The target with so many cores."""
    return parse_target({**target_dict(target), "num-cores": count})


def describe(target: tvm.target.Target) -> str:
    """Return the target in the short legacy form, for reports."""
    options = target_dict(target)
    named = [f"-{key}={options[key]}" for key in ("mtriple", "mcpu") if options.get(key)]
    features = [f"-mattr={','.join(options['mattr'])}"] if options.get("mattr") else []
    return " ".join([str(options["kind"]), *named, *features])


def runs_here(target: tvm.target.Target) -> bool:
    """Tell whether code for ``target`` runs on this machine."""
    same = host.architecture(triple_of(target)) == host.machine()
    return same and not host.missing_features(required_features(target))


def cross_compiler(target: tvm.target.Target) -> Callable[..., None]:
    """Return the linking function for ``export_library``; a missing compiler is a TargetError naming its package."""
    from tvm.support import cc

    architecture = host.architecture(triple_of(target))
    if architecture == host.machine():
        if cc.get_cc() is None:
            raise TargetError("no C++ compiler found to link the module: install one (Debian: apt install g++)")
        return cc.create_shared
    _, compiler, package = ARCHITECTURES[architecture]
    if shutil.which(compiler) is None:
        raise TargetError(f"linking for {architecture} needs {compiler} (Debian: apt install {package})")
    return cc.cross_compiler(compiler)


@cache
def host_options() -> dict[str, Any]:
    """Return the options of this machine's target.

    A virtual machine may hide features that the processor has by its name: these are switched off by ``mattr``.
    """
    from tvm.target import Target
    from tvm.target.codegen import llvm_get_system_cpu

    if host.machine() not in ARCHITECTURES:
        raise TargetError(f"this machine ({host.machine()}) is not supported; name a target: {supported()}")
    options: dict[str, Any] = {
        "kind": "llvm",
        "mtriple": ARCHITECTURES[host.machine()].triple,
        "mcpu": str(llvm_get_system_cpu()),
    }
    hidden = host.missing_features(required_features(Target(options)))
    return {**options, "mattr": [f"-{name}" for name in hidden]} if hidden else options


def _parse_string(text: str) -> dict[str, Any]:
    words = text.split()
    if not words:
        raise TargetError('the target is empty; "llvm" is this machine')
    if "/" in words[0] and len(words) == 1:
        return _from_tag(words[0])
    options: dict[str, Any] = {"kind": "llvm"}
    if not words[0].startswith("-"):
        first = words.pop(0)
        if host.architecture(first) in ARCHITECTURES:
            options["mtriple"] = first
        else:
            options["kind"] = first
    _check_kind(options)
    types = option_types()
    for word in words:
        key, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-"):
            raise TargetError(f"cannot read {word!r} in the target {text!r}: options are written -key=value")
        _check_key(key, types)
        if not equals and types[key] != "bool":
            raise TargetError(f"the target option -{key} needs a value: -{key}=...")
        options[key] = _convert(key, value if equals else "1", types[key])
    return options


def _convert(key: str, value: str, kind: str) -> Any:
    if kind.startswith("Array"):
        return [item for item in value.split(",") if item]
    if kind == "bool" and value.lower() in ("0", "1", "true", "false"):
        return value.lower() in ("1", "true")
    if kind in ("int", "bool"):
        try:
            return int(value)
        except ValueError as error:
            raise TargetError(f"the target option -{key} needs a number, not {value!r}") from error
    return value


def _from_tag(tag: str) -> dict[str, Any]:
    from tvm.target import Target
    from tvm.target.tag import list_tags

    tags = [str(name) for name in list_tags()]
    if tag not in tags:
        raise TargetError(f"unknown target tag {tag!r}{did_you_mean(tag, tags)}")
    return _exported(Target(tag))


def _exported(target: tvm.target.Target) -> dict[str, Any]:
    """Return a target's options as plain values; derived features, the host and empty tags left out."""
    plain: dict[str, Any] = {}
    for key, value in target.export().items():
        if str(key).startswith("feature.") or str(key) in ("host", "tag"):
            continue
        plain[str(key)] = value if isinstance(value, (bool, int)) else _text(value)
    return plain


def _text(value: Any) -> str | list[str]:
    return str(value) if isinstance(value, str) else [str(item) for item in value]


def _check_kind(options: Mapping[str, Any]) -> None:
    kind = options.get("kind", "llvm")
    if kind == "llvm":
        return
    if kind in _PLANNED_KINDS:
        raise TargetError(f'the target "{kind}" is not there yet; this version compiles for CPUs: {supported()}')
    hint = did_you_mean(str(kind), ["llvm", *_PLANNED_KINDS, *ARCHITECTURES])
    raise TargetError(f"unknown target kind {kind!r}{hint}; this version compiles for CPUs: {supported()}")


def _check_key(key: str, types: Mapping[str, str]) -> None:
    if key not in types:
        raise TargetError(f"unknown target option {key!r}{did_you_mean(key, types)}; known: {', '.join(types)}")


def _check_options(options: dict[str, Any]) -> None:
    options.setdefault("kind", "llvm")
    types = option_types()
    for key, value in options.items():
        if key == "kind":
            continue
        _check_key(key, types)
        if types[key].startswith("Array") and isinstance(value, str):
            options[key] = [item for item in value.split(",") if item]
    cores = options.get("num-cores", 1)
    if isinstance(cores, int) and cores < 1:  # TVM refuses what is no number
        raise TargetError(f"the target option -num-cores must be at least 1, not {cores}")
    if "mtriple" in options:
        options["mtriple"] = _checked_triple(str(options["mtriple"]))


def _checked_triple(triple: str) -> str:
    architecture = host.architecture(triple)
    if architecture not in ARCHITECTURES:
        hint = did_you_mean(architecture, ARCHITECTURES)
        raise TargetError(f"unknown or unsupported architecture in the triple {triple!r}{hint}; use {supported()}")
    if triple.lower() in (architecture, "amd64", "x86-64", "arm64"):
        return ARCHITECTURES[architecture].triple
    if "linux" not in triple or "android" in triple or "musl" in triple:
        raise TargetError(f"the triple {triple!r} is not supported: only Linux with glibc ({supported()})")
    return triple


def _settle_cpu(options: dict[str, Any]) -> None:
    """Resolve native, this machine as the default, and a CPU that implies its architecture; refuse unknown CPUs."""
    cpu = options.get("mcpu")
    if cpu == "native" or (cpu is None and "mtriple" not in options):
        own = host_options()
        if host.architecture(options.get("mtriple", own["mtriple"])) != host.machine():
            raise TargetError(
                f"-mcpu=native is this machine ({host.machine()}), but the triple is {options['mtriple']!r}"
            )
        hidden = [*own.get("mattr", []), *options.get("mattr", [])]
        options.update({"mtriple": own["mtriple"], "mcpu": own["mcpu"]} | ({"mattr": hidden} if hidden else {}))
        return
    if "mtriple" in options:
        architectures = [host.architecture(options["mtriple"])]
    else:
        architectures = sorted(ARCHITECTURES, key=lambda name: name != host.machine())
    owner = next((name for name in architectures if cpu is None or cpu in known_cpus(name)), None)
    if owner is None:
        names = [name for architecture in architectures for name in known_cpus(architecture)]
        raise TargetError(f"unknown CPU {cpu!r} for {' or '.join(architectures)}{did_you_mean(str(cpu), names)}")
    options.setdefault("mtriple", ARCHITECTURES[owner].triple)


def _check_features(options: Mapping[str, Any]) -> None:
    for attribute in options.get("mattr", []):
        name = str(attribute)[1:]
        if str(attribute)[:1] not in ("+", "-") or not name:
            raise TargetError(f"the feature {attribute!r} in -mattr must start with + or -, for example +{attribute}")
        known = known_features(options["mtriple"])
        if name not in known and not llvm_knows_feature(options["mtriple"], name):
            architecture = host.architecture(options["mtriple"])
            raise TargetError(f"unknown CPU feature {attribute!r} for {architecture}{did_you_mean(name, known)}")
