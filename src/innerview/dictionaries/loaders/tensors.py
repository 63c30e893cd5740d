"""Tensors of a weights file by name: sizes are known before anything is read, and each is checked as it is taken."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from innerview.errors import DictionaryError

FLOATS = ("float32", "float16", "bfloat16", "float64")
# What tells a format by its tensors, for messages about a wrong guess.
SIGNATURES = {
    "SAELens": {"W_enc", "W_dec", "b_dec"},
    "Gemma Scope 2": {"w_enc", "w_dec"},
    "EleutherAI sparsify": {"encoder.weight", "encoder.bias", "W_dec"},
    "Llama Scope R1-distill": {"encoder.weight", "log_jumprelu_threshold"},
    "dictionary_learning": {"encoder.weight", "decoder.weight", "bias"},
    "Llama Scope": {"encoder.weight", "decoder.weight", "decoder.bias"},
    "OpenAI": {"pre_bias", "latent_bias"},
    "Goodfire": {"encoder_linear.weight", "decoder_linear.weight"},
    "temporal SAE": {"D", "b"},
}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its shape, its number format, and what reads it."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]


@dataclass
class Tensors:
    """The tensors of a weights file.

    Attributes:
        file: The file's name, for messages.
        entries: Each by its name.
        values: What else the file holds by name: numbers and texts of a `.pt`.
        taken: Names that were read.
    """

    file: str
    entries: dict[str, Entry]
    values: dict[str, Any] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """Shape of a tensor with that many axes, none of them empty.

        Raises:
            DictionaryError: It is missing, or of another shape.
        """
        entry = self._entry(name)
        if len(entry.shape) != ndim or 0 in entry.shape:
            raise DictionaryError(f"{self.file}: {name!r} has {ndim} axes, not the shape {list(entry.shape)}")
        return entry.shape

    def take(
        self, name: str, *shape: int, transposed: bool = False, infinite: bool = False, exact: bool = False
    ) -> Tensor:
        """A tensor in float32, contiguous.

        Args:
            name: Its name in the file.
            shape: The shape that it must have there; `()` for one number.
            transposed: Whether its two axes are swapped.
            infinite: Whether infinity may stand in it, as the threshold of a dead feature.
            exact: Whether whole numbers and float64 are kept as they are.
        Raises:
            DictionaryError: It is missing, of another shape or number format, or holds NaN or infinity.
        """
        entry = self._entry(name)
        if entry.shape != shape:
            raise DictionaryError(f"{self.file}: {name!r} has the shape {list(shape)}, not {list(entry.shape)}")
        is_kept = exact and entry.dtype not in ("float16", "bfloat16")
        if entry.dtype not in FLOATS and not is_kept:
            raise DictionaryError(f"{self.file}: {name!r} holds real numbers ({', '.join(FLOATS)}), not {entry.dtype}")
        read = self._read(name, entry).detach()
        # bfloat16 stores a threshold of 1.1 as 1.1016: nothing is computed in it.
        made = (read.T if transposed else read).to(
            read.dtype if is_kept else torch.float32, memory_format=torch.contiguous_format, copy=True
        )
        made = made.contiguous()
        if made.numel() and made.is_floating_point():
            # The least and the most are NaN where anything is; no mask is made.
            least, most = (float(one) for one in torch.aminmax(made))
            if least != least or (not infinite and math.inf in (-least, most)):
                raise DictionaryError(f"{self.file}: {name!r} holds NaN or infinity; the file is damaged")
        return made

    def maybe(self, name: str, *shape: int, transposed: bool = False) -> Tensor | None:
        """The same, None where there is no such tensor."""
        return self.take(name, *shape, transposed=transposed) if name in self.entries else None

    def number(self, name: str, *, is_whole: bool = False) -> float | int:
        """One number: a tensor of one, or a plain value; a whole one where that is asked.

        Raises:
            DictionaryError: It is missing, or more than one number.
        """
        if name in self.values:
            value = self.values[name]
        else:
            entry = self._entry(name)
            if entry.shape not in ((), (1,)):
                raise DictionaryError(f"{self.file}: {name!r} is one number, not the shape {list(entry.shape)}")
            value = self._read(name, entry).item()
        if isinstance(value, bool) or not isinstance(value, int if is_whole else float) or value != value:
            raise DictionaryError(
                f"{self.file}: {name!r} is one {'whole' if is_whole else 'real'} number, not {value!r:.80}"
            )
        return value

    def dtype(self, name: str) -> str:
        """Number format of a tensor on disk."""
        return self._entry(name).dtype

    def done(self, ignored: Iterable[str] = ()) -> None:
        """Refuse tensors that nobody asked for: what changes the codes is never passed over.

        Raises:
            DictionaryError: There is one.
        """
        left = sorted(set(self.entries) - self.taken - set(ignored))
        if left:
            raise DictionaryError(
                f"{self.file} has a tensor {left[0]!r}, which this format has not; it has {', '.join(sorted(self.taken))}"
            )

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            names = set(self.entries)
            others = [said for said, needed in SIGNATURES.items() if needed <= names and name not in needed]
            hint = f" (these are the tensors of {others[0]})" if others else ""
            told = ", ".join(sorted(names)[:12]) or "none"
            raise DictionaryError(f"{self.file}: the tensor {name!r} is missing; it holds {told}{hint}")
        return self.entries[name]

    def _read(self, name: str, entry: Entry) -> Tensor:
        self.taken.add(name)
        try:
            read = entry.read()
        except DictionaryError:
            raise
        except Exception as error:
            # What a damaged file makes a library raise is not told beforehand.
            raise DictionaryError(f"{self.file}: {name!r} cannot be read: {_first_line(error)}") from error
        if tuple(read.shape) != entry.shape:
            raise DictionaryError(f"{self.file}: {name!r} has the shape {list(read.shape)}, not {list(entry.shape)}")
        return read


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
