"""Where a compiled model loses its answers, and what to do about it: the report's layers sorted by damage."""

from __future__ import annotations

from tvm_ffn.report import LayerRow, Report
from tvm_ffn.text_table import aligned, shortened

LARGE_SHARE = 0.15  # of the damage that all layers do together
INHERITED = 3.0  # accumulated error over a layer's own, from which on the layer is not to blame
LARGE_ERROR = 0.15


def damage_table(report: Report, most: int = 12) -> str:
    """The ``most`` layers that cost the answers most, as text: the error of each alone, that of its response in the
    quantised network, the damage expected of it alone and its share, with advice where there is some.

    Layers without a known damage (int8, or factorised at settings that were given) come after, by their own error.
    """
    total = sum(row.damage or 0.0 for row in report.layers)
    known = [row for row in report.layers if row.response_error is not None]
    known.sort(key=lambda row: (row.damage or 0.0, row.response_error or 0.0), reverse=True)
    head = ("layer", "form", "alone", "accumulated", "damage", "share", "advice")
    cells = [head, *(_cells(row, total) for row in known[:most])]
    return "\n".join(aligned(cells, left=(0, 1, 6)))


def advice(row: LayerRow, share: float) -> str:
    """What would help a layer, "" where nothing stands out."""
    own, accumulated = row.response_error or 0.0, row.accumulated_error or 0.0
    if share > LARGE_SHARE:
        return "lower its penalty" if row.planes else "give it more terms or method planes"
    if row.kind == "int8" and own > LARGE_ERROR:
        return "keep it in fp32"
    if own > LARGE_ERROR and row.planes is None:
        return "give it more terms or method planes"
    if accumulated > INHERITED * max(own, 0.01) and accumulated > LARGE_ERROR:
        return "its inputs are wrong already: see the layers before it"
    return ""


def _cells(row: LayerRow, total: float) -> tuple[str, ...]:
    share = row.damage / total if row.damage is not None and total > 0 else 0.0
    numbers = ["-" if value is None else f"{value:.3f}" for value in (row.response_error, row.accumulated_error)]
    damage = ("-", "-") if row.damage is None else (f"{row.damage:.5f}", f"{share:.0%}")
    return (shortened(row.name), row.form if row.kind == "ternary" else row.kind, *numbers, *damage, advice(row, share))
