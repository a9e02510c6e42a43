"""Ternary factorisation of weight matrices; knows NumPy and the native loops, not graphs or TVM."""

from tvm_ffn.factorize.factors import Factors
from tvm_ffn.factorize.solve import factorize, response_error
from tvm_ffn.factorize.target import response_target

__all__ = ["Factors", "factorize", "response_error", "response_target"]
