"""Unscheduled TensorIR definitions of the integer operators, each beside its NumPy reference."""
