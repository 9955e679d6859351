"""Values on their way between two processes that do not trust each other: as JSON, so that nothing in them is code."""

from __future__ import annotations

import math
import sys

DEEPEST = 20  # lists in lists
LONGEST_TEXT = 300  # characters of a repr
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")


class Malformed(ValueError):
    """What came through the pipe is no value."""


class Other:
    """Stands for a value that does not cross: it has a type's name and a repr, and is equal to nothing."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Listed(Other):
    """Stands for a value that can become a list, such as a column of pandas."""

    def __init__(self, text: str, values: object):
        super().__init__(text)
        self.values = values

    def tolist(self) -> object:
        return self.values


def encode(value: object, strict: bool = False, depth: int = 0) -> object:
    """A value as JSON can hold it: numbers and texts as they are, all else as [kind, parts].

    Args:
        value: numbers, texts, None, tensors and arrays of numbers, or lists, tuples and dicts of them.
        strict: whether any other value is an error; otherwise it becomes its repr.

    Raises:
        TypeError: a strict call met another value.
    """
    inner = {"strict": strict, "depth": depth + 1}
    if value is None or isinstance(value, bool):
        return value
    if depth < DEEPEST:
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return [kind, [encode(part, **inner) for part in value]]
        if isinstance(value, dict):
            return ["dict", [[encode(key, **inner), encode(part, **inner)] for key, part in value.items()]]
        if hasattr(value, "tolist"):
            return _encode_array(value, inner)
    for plain in (str, float, int):
        if isinstance(value, plain) and not (plain is int and value.bit_length() > 10_000):
            return plain(value)
    if strict:
        raise TypeError(f"a {type(value).__name__} cannot be handed to an exercise, nor lists deeper than {DEEPEST}")
    return ["other", type(value).__name__, _repr(value)]


def _encode_array(value, inner: dict) -> list:
    """A tensor, an array or a scalar of NumPy; or whatever else can become a list."""
    library = "tensor" if "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor) else "array"
    dtype = str(getattr(value, "dtype", "")).removeprefix("torch.")
    if dtype in DTYPES and hasattr(value, "reshape") and hasattr(value, "shape"):
        flat = (value.detach().cpu() if library == "tensor" else value).reshape(-1).tolist()
        return [library, dtype, list(value.shape), flat]
    return ["listed", type(value).__name__, _repr(value), encode(value.tolist(), **inner)]


def _repr(value: object) -> str:
    try:
        return repr(value)[:LONGEST_TEXT]
    except Exception:
        return f"<{type(value).__name__}>"


def decode(form: object, depth: int = 0) -> object:
    """The value of what `encode` made, whoever made it: only types that are named here, of no class of the sender's.

    Raises:
        Malformed: `encode` does not make such a thing.
    """
    if form is None or type(form) in (bool, int, float, str):
        return form
    if depth > DEEPEST + 1:
        raise Malformed("too deep")
    try:
        match form:
            case ["list", list(parts)]:
                return [decode(part, depth + 1) for part in parts]
            case ["tuple", list(parts)]:
                return tuple(decode(part, depth + 1) for part in parts)
            case ["dict", list(pairs)]:
                return {decode(key, depth + 1): decode(part, depth + 1) for key, part in pairs}
            case ["tensor" | "array" as library, str(dtype), list(shape), list(flat)]:
                return _decode_array(library, dtype, shape, flat)
            case ["other", str(kind), str(text)]:
                return _named(Other, kind)(text[:LONGEST_TEXT])
            case ["listed", str(kind), str(text), values]:
                return _named(Listed, kind)(text[:LONGEST_TEXT], decode(values, depth + 1))
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise Malformed(str(error)) from None
    raise Malformed("no value")


def _named(base: type, kind: str) -> type:
    """A class of ours with a name of theirs, for the sentence that says what was returned."""
    return type(kind if kind.isidentifier() and kind.isascii() and len(kind) < 40 else "object", (base,), {})


def _decode_array(library: str, dtype: str, shape: list, flat: list):
    whole = all(type(size) is int and size >= 0 for size in shape)
    numbers = all(type(number) in (bool, int, float) for number in flat)
    if dtype not in DTYPES or not whole or not numbers or math.prod(shape) != len(flat):
        raise Malformed("no tensor")
    if library == "tensor":
        import torch

        return torch.tensor(flat, dtype=getattr(torch, dtype)).reshape(shape)
    import numpy as np

    return np.array(flat, dtype=dtype).reshape(shape)
