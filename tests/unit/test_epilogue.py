"""The integer epilogue against exact arithmetic: Python integers, fractions, one rounding a floating-point product."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_ffn.kernels.epilogue import Epilogue, apply_numpy, requantize_numpy, with_residual
from tvm_ffn.kernels.pointwise import Affine

TOTALS = st.integers(-(2**30), 2**30)
BIASES = st.integers(-(2**29), 2**29)
INT8 = st.integers(-127, 127)
SCALES = st.floats(2.0**-30, 8.0, width=32)
INT16 = -(2**15), 2**15 - 1
PLAIN = Epilogue()
BOUNDS = st.sampled_from([(-127, 127), (0, 127), (0, 96), (-100, -3)])


def f32(value: float | Fraction | int) -> float:
    """The nearest float32; exact in double precision before, so that it rounds only once."""
    assert Fraction(float(value)) == value
    return float(np.float32(value))


def product(a: float, b: float) -> Fraction:
    """a * b of two float32 values, rounded once."""
    return Fraction(f32(Fraction(a) * Fraction(b)))


def clip(value: int, lo: int, hi: int) -> int:
    return min(max(value, lo), hi)


def stored(total: int, bias: int, scale: float, spec: Epilogue, residual: tuple[int, int] | None = None) -> int:
    """The definition, one output at a time; `round` of a fraction takes ties to even."""
    assert spec.lo is not None and spec.hi is not None
    value, bounds = f32(total + bias), (int(spec.lo), int(spec.hi))
    factor = float(product(scale, float(np.float32(spec.slope)))) if value < 0 else scale
    if residual is None:
        return clip(round(product(value, factor)) + spec.zero, *bounds)
    one = 1 << spec.fraction_bits
    own = clip(round(product(value, factor * one)), *INT16)
    fixed = clip(own + residual[0] * residual[1] // 256, *INT16)
    return clip(clip(fixed + one // 2 + spec.zero * one, *INT16) // one, *bounds)


def run(spec: Epilogue, total: int, bias: int, scale: float, residual: tuple[int, int] | None = None) -> float:
    extra = None if residual is None else (np.array([residual[0]], np.int8), np.array([residual[1]], np.int16))
    out = apply_numpy(spec, np.array([total]), np.array([bias], np.int32), np.array([scale], np.float32), extra)
    assert out.dtype == spec.out_dtype
    return out[0].item()


@given(TOTALS, BIASES, SCALES, BOUNDS)
def test_plain(total: int, bias: int, scale: float, bounds: tuple[int, int]) -> None:
    spec = Epilogue("int8", *bounds)
    assert run(spec, total, bias, scale) == stored(total, bias, scale, spec)


@given(TOTALS, BIASES, SCALES, st.floats(2.0**-10, 2.0), INT8, BOUNDS)
def test_leaky_with_a_zero_point(
    total: int, bias: int, scale: float, slope: float, zero: int, bounds: tuple[int, int]
) -> None:
    spec = Epilogue("int8", *bounds, slope, zero)
    assert run(spec, total, bias, scale) == stored(total, bias, scale, spec)


def with_scale(scale: float, spec: Epilogue = PLAIN) -> tuple[Epilogue, int]:
    found, multiplier = with_residual(spec, scale)
    assert multiplier.dtype == np.int16
    return found, int(multiplier[0])


@given(TOTALS, BIASES, SCALES, INT8, SCALES, INT8, BOUNDS)
def test_residual(
    total: int, bias: int, scale: float, item: int, item_scale: float, zero: int, bounds: tuple[int, int]
) -> None:
    spec, multiplier = with_scale(item_scale, Epilogue("int8", *bounds, zero=zero))
    extra = (item, multiplier)
    assert run(spec, total, bias, scale, extra) == stored(total, bias, scale, spec, extra)


@given(st.integers(-(2**20), 2**20), SCALES, INT8, st.floats(2.0**-12, 64.0, width=32), INT8, BOUNDS)
def test_a_residual_is_added_in_real_numbers(
    total: int, scale: float, item: int, item_scale: float, zero: int, bounds: tuple[int, int]
) -> None:
    """The result is as near the real sum as the last fraction bit, cut and rounded, and the multiplier leave it:
    saturation in int16 is never seen."""
    spec, multiplier = with_scale(item_scale, Epilogue("int8", *bounds, zero=zero))
    found = run(spec, total, 0, scale, (item, multiplier))
    real = total * Fraction(scale) + item * Fraction(item_scale) + zero
    real = min(max(real, Fraction(bounds[0])), Fraction(bounds[1]))
    step = Fraction(1, 2**spec.fraction_bits)
    rounded_product = abs(total) * Fraction(scale) * Fraction(1, 2**22) if abs(total * scale) < 1024 else 0
    assert abs(found - real) <= Fraction(1, 2) + step / 2 + step + Fraction(128, 2) * step / 256 + rounded_product


@pytest.mark.parametrize(
    ("scale", "bits"), [(0.001, 6), (1.0, 6), (1.9999, 6), (2.0, 5), (63.9, 1), (64.0, 1), (1e9, 1)]
)
def test_a_large_residual_has_fewer_fraction_bits(scale: float, bits: int) -> None:
    spec, multiplier = with_scale(scale)
    assert (spec.fraction_bits, spec.residual) == (bits, True)
    assert multiplier == min(round(scale * 2 ** (bits + 8)), 2**15 - 1)


@given(TOTALS, BIASES, SCALES)
def test_float_output_is_one_rounded_product(total: int, bias: int, scale: float) -> None:
    expected = float(product(f32(total + bias), scale))
    assert run(Epilogue("float32", None, None), total, bias, scale) == expected
    assert run(Epilogue("float32", 0.0, 6.0), total, bias, scale) == min(max(expected, 0.0), 6.0)


@given(TOTALS, SCALES, st.sampled_from([127, 511, 2047]))
def test_requantised_middle(total: int, scale: float, limit: int) -> None:
    found = requantize_numpy(np.array([total]), np.array([scale], np.float32), limit)
    assert found.dtype == np.int16
    assert found[0] == clip(round(product(f32(total), scale)), -limit, limit)


@pytest.mark.parametrize(("total", "expected"), [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2), (-7, -4)])
def test_halves_go_to_the_even_neighbour(total: int, expected: int) -> None:
    assert run(Epilogue(), total, 0, 0.5) == expected
    assert requantize_numpy(np.array([total]), np.array([0.5], np.float32), 511)[0] == expected


def test_a_residual_sum_rounds_halves_up() -> None:
    """The shift of the fixed-point sum: 0.25 + 0.25, 0.75 + 0.75, and their negatives."""
    spec, quarter = with_scale(0.25)
    found = [run(spec, n, 0, 0.25, (n, quarter)) for n in (1, 3, -1, -3)]
    assert found == [1, 2, 0, -1]


def test_the_bounds_are_reached_and_kept() -> None:
    assert run(Epilogue(), 10**9, 0, 1.0) == 127
    assert run(Epilogue(), -(10**9), 0, 1.0) == -127
    assert run(Epilogue(lo=0), -5, 0, 1.0) == 0
    spec, multiplier = with_scale(8.0)
    assert run(spec, 2**30, 2**29, 8.0, (127, multiplier)) == 127
    assert run(spec, -(2**30), -(2**29), 8.0, (-127, multiplier)) == -127


def test_the_sign_of_sum_and_bias_chooses_the_slope() -> None:
    for zero in (0, -83):
        leaky = Epilogue(slope=0.25, zero=zero)
        assert run(leaky, 100, -60, 1.0) == 40 + zero
        assert run(leaky, 60, -100, 1.0) == -10 + zero
        assert run(leaky, -60, 100, 1.0) == 40 + zero


def test_what_a_float_output_cannot_take() -> None:
    for options in ({"residual": True}, {"slope": 0.1}, {"zero": 1}):
        with pytest.raises(ValueError, match="float32 output"):
            Epilogue("float32", None, None, **options)
    assert Epilogue().multiplies == 1
    assert Epilogue(residual=True).multiplies == 2


@given(st.floats(-200.0, 200.0, width=32), st.floats(-1000.0, 1000.0, width=32))
def test_an_affine_step_is_as_near_the_real_numbers_as_its_fraction_bits(scale: float, bias: float) -> None:
    x, (lo, hi) = np.arange(-127, 128, dtype=np.int8), (-127, 127)
    operator = Affine((1, 1, len(x)), Epilogue("int8", lo, hi))
    constants = operator.constants(np.array([scale]), np.array([bias]))
    assert all(value.dtype == np.int16 for value in constants)
    found = operator.reference(x.reshape(1, 1, -1), *constants).reshape(-1)
    real = x * scale + bias
    unit = 2.0 ** -int(constants[2][0])
    reached = abs(scale) < 64 and abs(bias) + 127 * abs(scale) < 32000 * unit  # of int16, which saturates beyond
    if reached or abs(scale) < 1:
        assert np.abs(found - np.clip(real, lo, hi)).max() <= 0.5 + 1.5 * unit + 127 * unit / 512
