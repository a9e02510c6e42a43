"""Ternary factorisation of weight matrices; knows NumPy and the native loops, not graphs or TVM."""

from tvm_ffn.factorize.factors import Factors
from tvm_ffn.factorize.planes import factorize_planes
from tvm_ffn.factorize.solve import factorize, response_error
from tvm_ffn.factorize.target import response_target

__all__ = ["Factors", "factorize", "factorize_planes", "response_error", "response_target"]
