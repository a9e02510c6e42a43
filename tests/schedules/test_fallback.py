"""What the last rule inlines: elementwise blocks, but no conditional ones, whose readers would not become vectors."""

from __future__ import annotations

from small_net import Net
from tvm import s_tir
from tvm.tirx import PrimFunc

from tvm_ffn import targets
from tvm_ffn.config import FFNConfig
from tvm_ffn.pipeline import run
from tvm_ffn.schedules.generic.fallback import Fallback
from tvm_ffn.schedules.rule import Machine
from tvm_ffn.synthetic import random_compilation


def test_a_padding_is_not_inlined() -> None:
    net, target = Net(1, 3, 8, 8), targets.parse_target("llvm")
    model = net.model(net("LRN", net("Relu", net.conv("x", 3, 8)), size=5, alpha=0.1))
    c = run(random_compilation(model, target, FFNConfig()), start_at="choose", stop_after="lower")
    (lrn,) = (f for f in c.mod.functions.values() if isinstance(f, PrimFunc) and "ffn.op" not in f.attrs)
    before = s_tir.Schedule(lrn)
    assert len(before.get_child_blocks(before.get_sblock("root"))) > 5
    after = s_tir.Schedule(Fallback().apply(lrn, Machine.of(target)))
    names = [after.get(block).name_hint for block in after.get_child_blocks(after.get_sblock("root"))]
    assert len(names) == 2 and names[0] == "PadInput"
