"""Pieces of straight-line code as one program, and the program as an LLVM function.

Each piece runs over all vectors of a tile before the next one starts, so that its instructions are fetched once and
then come from the instruction caches. Processors fetch instructions from the outer caches and from memory a line at a
time (some 4 GB/s); data they can ask for ahead. So every piece asks for the code of the second piece after it as data,
its prefetches spread evenly over its instructions: unspread they fill the queue of misses and stop everything. Each
line is asked for twice, a page apart, as what finds that queue full is dropped (from memory .80 to .87 of the time).

The function is one inline assembly statement: ordinary vector IR of this size would take minutes to compile and spill.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm_ffn.kernels.straight_line import Piece, PieceCounts, VectorISA

_LINE = 64  # bytes of a cache line
_AHEAD = 2  # pieces
_AGAIN = 4096  # bytes further on, for the first time


def program(pieces: Sequence[Piece], row_bytes: int, isa: VectorISA) -> list[str]:
    """Assembly of all pieces over the vectors of rows of ``row_bytes``; %rdi: input, %rsi: output."""
    vectors = row_bytes // isa.vector_bytes
    sizes = [-(-code_bytes(piece, isa) // _LINE) for piece in pieces] + [0] * _AHEAD
    lines = ["movq %rdi,%r8", "movq %rsi,%r9", "leaq 10f(%rip),%rax", f"movl $${sum(sizes[:_AHEAD])},%edx"]
    lines += ["7:", "prefetcht1 (%rax)", f"addq $${_LINE},%rax", "decl %edx", "jnz 7b"]
    for index, piece in enumerate(pieces):
        label = 10 + index % _AHEAD  # "label f" is then the piece that far from here
        sums = isa.sums[: piece.rows]
        places = [f"{row * row_bytes}(%rsi)" for row in range(piece.rows)]
        ahead = -(-sizes[index + _AHEAD] // vectors)
        lines += [f"{label}:", "movq %r8,%rdi", f"leaq {piece.target}(%r9),%rsi", f"movl $${vectors},%edx"]
        lines += [f"leaq {label}f(%rip),%rax", "7:"]
        if piece.is_first or piece.doubles:
            lines += [f"{isa.zero} {register},{register},{register}" for register in sums]
        else:
            lines += [f"{isa.move} {place},{register}" for place, register in zip(places, sums, strict=True)]
        asked = (_LINE * line + again for line in range(ahead) for again in (_AGAIN, 0))
        lines += _spread(piece.lines, [f"prefetcht1 {place}(%rax)" for place in asked])
        if piece.doubles and not piece.is_first:
            lines += [f"vpaddw {place},{register},{register}" for place, register in zip(places, sums, strict=True)]
        lines += [f"{isa.move} {register},{place}" for place, register in zip(places, sums, strict=True)]
        lines += [f"addq $${_LINE * ahead},%rax"]
        lines += [f"addq $${isa.vector_bytes},%rdi", f"addq $${isa.vector_bytes},%rsi", "decl %edx", "jnz 7b"]
    return [*lines, *(f"{10 + place}:" for place in range(_AHEAD)), "vzeroupper"]


def code_bytes(piece: Piece, isa: VectorISA) -> int:
    """Estimate of a piece's machine code, a little high."""
    return counted_bytes(PieceCounts(piece.rows, piece.doubles, piece.adds, piece.loads), isa)


def counted_bytes(counts: PieceCounts, isa: VectorISA) -> int:
    """The same from its counts: additions, loads with 32-bit offsets, its sums in and out."""
    add, load = (6, 10) if isa.vector_bytes == 64 else (4, 8)
    return add * counts.adds + load * (counts.loads + 2 * counts.rows) + _LINE


def llvm_function(name: str, programs: Sequence[Sequence[str]], isa: VectorISA) -> str:
    """Assembly as LLVM IR: ``i32 name(ptr input, ptr output, i32 program)``.

    TVM inlines what it imports; ``noduplicate`` keeps LLVM from copying the code when it unrolls the loops around it.
    """
    constraints = f"={{rdi}},={{rsi}},0,1,~{{rax}},~{{rdx}},~{{r8}},~{{r9}},{isa.clobbers}"
    blocks = []
    for index, lines in enumerate(programs):
        body = "\\0A".join(lines)  # LLVM's escape of a line break
        call = f'call {{ptr, ptr}} asm sideeffect "{body}", "{constraints}"(ptr %i, ptr %o) noduplicate nounwind'
        blocks.append(f"p{index}:\n  %r{index} = {call}\n  ret i32 0\n")
    others = " ".join(f"i32 {index}, label %p{index}" for index in range(1, len(programs)))
    entry = f"  switch i32 %p, label %p0 [ {others} ]\n"
    return f"define i32 @{name}(ptr %i, ptr %o, i32 %p) {{\n{entry}{''.join(blocks)}}}\n"


def _spread(lines: Sequence[str], guests: Sequence[str]) -> list[str]:
    """``guests`` in order among ``lines``, evenly."""
    merged: list[str] = []
    for index, guest in enumerate(guests):
        merged += lines[index * len(lines) // len(guests) : (index + 1) * len(lines) // len(guests)]
        merged.append(guest)
    return merged or list(lines)
