"""GGUF files, as llama.cpp writes them: header, tensors and their number formats. Needs the package `gguf`."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smallwit.errors import UserError


class GgufFile:
    """A GGUF file, mapped and not loaded.

    Raises `UserError` for what is no whole GGUF file, and where the package `gguf` is missing.
    """

    def __init__(self, path: Path) -> None:
        gguf = gguf_package(path)
        self.path = path
        try:
            self._reader = gguf.GGUFReader(path)
            self.tensors: dict[str, Any] = {tensor.name: tensor for tensor in self._reader.tensors}
            self.architecture = str(self.need("general.architecture"))
        except (UserError, MemoryError):
            raise
        except Exception as error:
            # Of damaged bytes the reader makes numbers, sizes and names, and fails in whatever way these do.
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise UserError(f"{path}: is no whole GGUF file ({reason}); download or copy it again") from error

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value of the header, or `default`; 32-bit numbers in their shortest decimal form."""
        field = self._reader.fields.get(key)
        if field is None:
            return default
        try:
            value = field.contents()
        except (ValueError, IndexError, TypeError) as error:
            raise UserError(f"{self.path}: {key} in its header cannot be read; download or copy it again") from error
        return float(str(np.float32(value))) if isinstance(value, float) else value

    def need(self, key: str) -> Any:
        """Return a value of the header. Raises `UserError` where there is none."""
        value = self.get(key)
        if value is None:
            raise UserError(f"{self.path}: its header has no {key}; convert the model again by llama.cpp")
        return value

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of the header that begin with `prefix`, without it."""
        return [key.removeprefix(prefix) for key in self._reader.fields if key.startswith(prefix)]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor as torch has it, rows first."""
        return tuple(int(size) for size in reversed(self.tensors[name].shape))

    def kind(self, name: str) -> str:
        """Return the number format of a tensor, for example Q4_K."""
        return str(self.tensors[name].tensor_type.name)

    def bits(self, name: str) -> float:
        """Return the bits that a number of a tensor takes."""
        return 8 * int(self.tensors[name].n_bytes) / math.prod(self.shape(name))

    def read(self, name: str) -> Tensor:
        """Return a tensor in float32. Raises `UserError` for numbers that are not finite, and unknown formats."""
        gguf = gguf_package(self.path)
        tensor = self.tensors[name]
        try:
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            what = f"{name} is stored as {self.kind(name)}, which the package gguf cannot read"
            raise UserError(f"{self.path}: {what}; take a file of another quantisation") from error
        found = torch.from_numpy(np.array(values, dtype=np.float32)).reshape(self.shape(name))
        if not found.isfinite().all():
            raise UserError(f"{self.path}: {name} holds numbers that are not finite; download or copy the file again")
        return found


def gguf_package(path: Path) -> Any:
    """Return the module `gguf`. Raises `UserError`, with the command that installs it, where it is missing."""
    try:
        import gguf
    except ImportError as error:
        raise UserError(f"{path}: GGUF files need the package gguf: pip install 'smallwit[gguf]'") from error
    return gguf
