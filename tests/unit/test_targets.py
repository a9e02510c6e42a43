"""Targets: every form a user may write, every mistake answered with near matches."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

from tvm_ffn import host
from tvm_ffn.errors import TargetError
from tvm_ffn.targets import (
    cross_compiler,
    describe,
    host_options,
    parse_target,
    required_features,
    runs_here,
    target_dict,
    threads,
    vector_bytes,
    vector_registers,
    with_threads,
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("llvm -mtriple=aarch64", {"mtriple": "aarch64-linux-gnu"}),
        ("llvm -mtriple=arm64", {"mtriple": "aarch64-linux-gnu"}),
        ("aarch64-linux-gnu", {"mtriple": "aarch64-linux-gnu"}),
        ("llvm -mtriple=aarch64-none-linux-gnu", {"mtriple": "aarch64-none-linux-gnu"}),
        ("llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72", {"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}),
        ("llvm -mcpu=cortex-a72", {"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}),
        ("-mcpu=cortex-a72", {"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}),
        ("llvm -mtriple=aarch64 -mattr=+neon,+dotprod", {"mattr": ["+neon", "+dotprod"]}),
        ("llvm --mtriple=aarch64  -num-cores=4", {"num-cores": 4}),
        ("llvm -mtriple=x86_64 -mcpu=x86-64-v3", {"mtriple": "x86_64-linux-gnu", "mcpu": "x86-64-v3"}),
        ("raspberry-pi/4b-aarch64", {"mcpu": "cortex-a72", "mattr": ["+neon"], "num-cores": 4}),
        ({"kind": "llvm", "mtriple": "aarch64", "mattr": "+dotprod"}, {"mattr": ["+dotprod"]}),
        ({"tag": "raspberry-pi/4b-aarch64", "num-cores": 2}, {"mcpu": "cortex-a72", "num-cores": 2}),
        ({"mtriple": "aarch64"}, {"kind": "llvm"}),
    ],
)
def test_forms(written: Any, expected: dict[str, Any]) -> None:
    options = target_dict(parse_target(written))
    assert {key: options[key] for key in expected} == expected


def test_tvm_target_goes_through() -> None:
    target = parse_target("llvm -mtriple=aarch64 -mcpu=cortex-a53")
    assert target_dict(parse_target(target)) == target_dict(target)


@pytest.mark.parametrize("written", ["llvm", "llvm -mcpu=native", {"kind": "llvm"}])
def test_this_machine(written: Any) -> None:
    target = parse_target(written)
    assert runs_here(target)
    assert target_dict(target)["mcpu"] == host_options()["mcpu"]


def test_features_this_machine_hides_are_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a virtual machine whose processor by its name has AVX-512."""
    flags = {name for name in host.X86_FEATURES.values() if not name.startswith("avx512")}
    monkeypatch.setattr(host, "_cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(host, "machine", lambda: "x86_64")
    monkeypatch.setattr("tvm.target.codegen.llvm_get_system_cpu", lambda: "skylake-avx512")
    host_options.cache_clear()
    try:
        target = parse_target("llvm")
        assert runs_here(target) and vector_bytes(target) == 32
    finally:
        host_options.cache_clear()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("cuda", "not there yet"),
        ("nvidia/nvidia-h100", "not there yet"),
        ({"kind": "cuda", "arch": "sm_90"}, "not there yet"),
        ("lvm", "did you mean 'llvm'"),
        ("metal", "unknown target kind"),
        ("", "empty"),
        ("llvm -mtriple=aarch46", "did you mean 'aarch64'"),
        ("llvm -mtriple=arm64-apple-ios15", "only Linux"),
        ("llvm -mtriple=aarch64 -mcpu=cortex-a7", "unknown CPU 'cortex-a7'.*did you mean 'cortex-a7"),
        ("llvm -mtriple=x86_64 -mcpu=x86-64-v33", "did you mean 'x86-64-v3'"),
        ("llvm -mtriple=x86_64 -mcpu=cortex-a72", "unknown CPU 'cortex-a72' for x86_64"),
        ("llvm -mtriple=x86_64 -mattr=+avx512vnn", "did you mean 'avx512vnni'"),
        ("llvm -mtriple=aarch64 -mattr=+avx2", "unknown CPU feature"),
        ("llvm -mtriple=aarch64 -mattr=neon", r"must start with \+ or -"),
        ("llvm -mcpuu=k8", "did you mean 'mcpu'"),
        ("llvm -num-cores=many", "needs a number"),
        ("llvm -num-cores=0", "at least 1, not 0"),
        ({"kind": "llvm", "num-cores": -2}, "at least 1, not -2"),
        ("llvm -mcpu", "needs a value"),
        ("llvm haswell", "cannot read 'haswell'"),
        ("raspberry-pi/4b-aarch46", "did you mean 'raspberry-pi/4b-aarch64'"),
        (3, "not int"),
        ({"kind": "llvm", "mtriple": "aarch64", "num-cores": "x"}, "TVM refuses"),
    ],
)
def test_mistakes(written: Any, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        parse_target(written)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_with_other_cores() -> None:
    target = parse_target("llvm -mtriple=x86_64 -mcpu=x86-64-v3 -num-cores=2")
    other = with_threads(target, 7)
    assert (threads(target), threads(other)) == (2, 7)
    assert target_dict(other) == {**target_dict(target), "num-cores": 7}


@pytest.mark.parametrize(
    ("written", "width"),
    [
        ("llvm -mtriple=x86_64 -mcpu=x86-64-v4", 64),
        ("llvm -mtriple=x86_64 -mcpu=x86-64-v3", 32),
        ("llvm -mtriple=x86_64", 16),
        ("llvm -mtriple=aarch64", 16),
    ],
)
def test_vector_bytes(written: str, width: int) -> None:
    assert vector_bytes(parse_target(written)) == width


@pytest.mark.parametrize(
    "written",
    ["llvm -mtriple=aarch64-linux-gnu", "llvm -mtriple=x86_64-linux-gnu -mcpu=haswell -mattr=+avxvnni,-fma"],
)
def test_description_can_be_given_back(written: str) -> None:
    assert describe(parse_target(written)) == written


def test_vector_registers() -> None:
    written = ("aarch64", "-mtriple=x86_64 -mcpu=x86-64-v3", "-mtriple=x86_64 -mcpu=x86-64-v4")
    assert [vector_registers(parse_target(target)) for target in written] == [32, 16, 32]


def test_required_features() -> None:
    assert required_features(parse_target("llvm -mtriple=aarch64 -mattr=+dotprod")) == ("neon", "dotprod")
    assert {"avx2", "fma"} <= set(required_features(parse_target("llvm -mtriple=x86_64 -mcpu=x86-64-v3")))


def test_missing_linker_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(host, "machine", lambda: "x86_64")
    with pytest.raises(TargetError, match=r"apt install g\+\+-aarch64-linux-gnu"):
        cross_compiler(parse_target("llvm -mtriple=aarch64"))


@pytest.mark.parametrize(
    ("triple", "name"),
    [
        ("x86_64-linux-gnu", "x86_64"),
        ("x86-64", "x86_64"),
        ("AMD64", "x86_64"),
        ("arm64", "aarch64"),
        ("aarch64-unknown-linux-gnu", "aarch64"),
        ("riscv64-linux-gnu", "riscv64"),
    ],
)
def test_architecture(triple: str, name: str) -> None:
    assert host.architecture(triple) == name


def test_threads() -> None:
    assert threads(parse_target("llvm -num-cores=3")) == 3
    assert threads(parse_target("llvm")) == len(os.sched_getaffinity(0))
    elsewhere = next(name for name in ("aarch64", "x86_64") if name != host.machine())
    assert threads(parse_target(f"llvm -mtriple={elsewhere}")) == 4
