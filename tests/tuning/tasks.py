"""Small tasks for the tests of tuning."""

from __future__ import annotations

from tvm_ffn.kernels.epilogue import Epilogue
from tvm_ffn.kernels.geometry import ConvGeometry
from tvm_ffn.tuning.task import Task

GEOMETRY = ConvGeometry(1, 8, 14, 14, (3, 3), (1, 1), (1, 1, 1, 1))


def planes(density: float = 0.6, outputs: int = 8) -> Task:
    return Task("planes", GEOMETRY, 0, 1, 72, outputs, 4, density, 10, Epilogue())


TASKS = (
    planes(),
    Task("planes", None, 20, 1, 40, 24, 4, 0.6, 10, Epilogue("float32", None, None)),
    Task("factors", GEOMETRY, 0, 1, 72, 8, 12, 0.5, 10, Epilogue(residual=True)),
    Task("factors", GEOMETRY, 0, 1, 72, 8, 12, 0.5, 10, Epilogue(), code=True),
    Task("planes", GEOMETRY, 0, 1, 72, 8, 4, 0.6, 10, Epilogue(slope=0.1), code=True),
    Task("factors", None, 1, 1, 64, 24, 24, 0.5, 10, Epilogue()),
    Task("int8", ConvGeometry(1, 6, 9, 9, (3, 3), (2, 2), (1, 1, 1, 1), groups=6), 0, 6, 9, 1, 0, 1.0, 10, Epilogue()),
    Task("int8", ConvGeometry(1, 16, 9, 9, (3, 3), (1, 1), (1, 1, 1, 1)), 0, 1, 144, 32, 0, 1.0, 10, Epilogue()),
    Task("int8", None, 1, 1, 64, 10, 0, 1.0, 10, Epilogue("float32", None, None)),
)
