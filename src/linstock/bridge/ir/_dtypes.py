"""Dtypes under names of their own, so that a program says the same whatever made it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dtype:
    """The type of an array's entries.

    Attributes:
        name: Its name, as NumPy and both libraries have it: `float32`, `bool`.
        kind: `"bool"`, `"int"`, `"uint"`, `"float"` or `"complex"`.
        bits: Size of one entry, in bits.
    """

    name: str
    kind: str
    bits: int

    def __repr__(self) -> str:
        return self.name

    @property
    def is_floating_point(self) -> bool:
        """Whether it is a real floating-point type."""
        return self.kind == "float"

    @property
    def is_complex(self) -> bool:
        """Whether it is a complex type."""
        return self.kind == "complex"


BOOL = Dtype("bool", "bool", 8)
UINT8 = Dtype("uint8", "uint", 8)
UINT16 = Dtype("uint16", "uint", 16)
UINT32 = Dtype("uint32", "uint", 32)
UINT64 = Dtype("uint64", "uint", 64)
INT8 = Dtype("int8", "int", 8)
INT16 = Dtype("int16", "int", 16)
INT32 = Dtype("int32", "int", 32)
INT64 = Dtype("int64", "int", 64)
FLOAT16 = Dtype("float16", "float", 16)
BFLOAT16 = Dtype("bfloat16", "float", 16)
FLOAT32 = Dtype("float32", "float", 32)
FLOAT64 = Dtype("float64", "float", 64)
COMPLEX64 = Dtype("complex64", "complex", 64)
COMPLEX128 = Dtype("complex128", "complex", 128)

BY_NAME = {
    dtype.name: dtype
    for dtype in (
        *(BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64),
        *(FLOAT16, BFLOAT16, FLOAT32, FLOAT64, COMPLEX64, COMPLEX128),
    )
}


def find_dtype(name: str) -> Dtype:
    """The dtype of that name; one that the table lacks is known by its name alone."""
    return BY_NAME.get(name) or Dtype(name, "other", 0)
