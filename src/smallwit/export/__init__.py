"""Models in the formats of other programs, read back and measured."""

from typing import Literal

Quant = Literal["q8_0", "q5_0", "q4_0", "f16", "bf16", "f32"]
"""Number formats of a GGUF file, by llama.cpp's names."""
OnnxQuant = Literal["f32", "int4"]
"""Number formats of an ONNX folder that run on a CPU."""
FileFormat = Literal["gguf", "onnx"]
AnyQuant = Literal[Quant, OnnxQuant]
