# SPDX-License-Identifier: Apache-2.0
"""Fixed-size structures, declared once and used in both directions.

    class Header(Layout, size=16):
        version: U32
        flags: U16
        reserved_06: Annotated[bytes, Zero(2)] = bytes(2)
        nonce: Annotated[bytes, Raw(8)]

The order of the fields is their order on the wire, integers are little-endian, there is no padding but what is declared. A
subclass is a frozen, slotted, keyword-only dataclass. ``decode`` knows lengths and reserved bytes and nothing else: versions
and policies are judged by callers.
"""

from __future__ import annotations

import dataclasses
import struct
import sys
from typing import Annotated, Any, ClassVar, Self, dataclass_transform, get_args, get_origin, get_type_hints

from confide.errors import MalformedError

__all__ = ["U8", "U16", "U32", "U64", "Array", "Layout", "Raw", "Zero"]


@dataclasses.dataclass(frozen=True, slots=True)
class _Integer:
    size: int
    code: str


@dataclasses.dataclass(frozen=True, slots=True)
class Raw:
    """A byte string of exactly ``size`` bytes."""

    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Zero:
    """Reserved: ``size`` bytes that must all be zero."""

    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Array:
    """``count`` elements one after another, each of the type ``element`` (``U8`` to ``U64``, ``Raw(n)`` or a Layout)."""

    element: Any
    count: int


U8 = Annotated[int, _Integer(1, "B")]
U16 = Annotated[int, _Integer(2, "H")]
U32 = Annotated[int, _Integer(4, "I")]
U64 = Annotated[int, _Integer(8, "Q")]


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    """One row of the table: where a field lies and how many values of the flat struct belong to it."""

    name: str
    offset: int
    size: int
    spec: Any
    values: int


def _spec(annotation: Any, owner: str, name: str) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Layout):
        return annotation
    if isinstance(annotation, Raw):
        return annotation
    if get_origin(annotation) is Annotated:
        found = [m for m in get_args(annotation)[1:] if isinstance(m, (_Integer, Raw, Zero, Array))]
        if len(found) == 1:
            spec = found[0]
            if isinstance(spec, Array):
                element = _spec(spec.element, owner, name)
                if isinstance(element, (Zero, Array)):
                    raise TypeError(f"{owner}.{name}: an array of this element is not supported")
                return Array(element, spec.count)
            return spec
    raise TypeError(f"{owner}.{name}: not a field of a fixed-size structure")


def _shape(spec: Any) -> tuple[str, int, int]:
    """The struct format, the size in bytes and the number of struct values of one spec."""
    if isinstance(spec, _Integer):
        return spec.code, spec.size, 1
    if isinstance(spec, (Raw, Zero)):
        return f"{spec.size}s", spec.size, 1
    if isinstance(spec, Array):
        code, size, values = _shape(spec.element)
        return code * spec.count, size * spec.count, values * spec.count
    layout: type[Layout] = spec
    return layout._format, layout.SIZE, layout._values  # noqa: SLF001


@dataclass_transform(frozen_default=True, kw_only_default=True)
class _LayoutMeta(type):
    """Turns the annotations of a class into its table, and the class into a dataclass."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, size: int | None = None
    ) -> _LayoutMeta:
        made = super().__new__(cls, name, bases, namespace)
        if (
            not bases or "__slots__" in namespace
        ):  # Layout itself, or the slotted twin that dataclass() makes.
            return made
        if size is None:
            raise TypeError(f"{name}: say the structure's size, as in class {name}(Layout, size=...)")
        scope = sys._getframe(1).f_locals  # noqa: SLF001 - lets structures be declared inside functions
        hints = get_type_hints(made, localns=dict(scope), include_extras=True)
        table: list[_Field] = []
        pattern = ""
        offset = values = 0
        for field_name in namespace.get("__annotations__", {}):
            spec = _spec(hints[field_name], name, field_name)
            code, width, count = _shape(spec)
            table.append(_Field(field_name, offset, width, spec, count))
            pattern += code
            offset += width
            values += count
        if offset != size:
            raise TypeError(f"{name}: its fields take {offset} bytes, not {size}")
        finished: Any = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(made)
        finished.SIZE = size
        finished._table = tuple(table)  # noqa: SLF001
        finished._format = pattern  # noqa: SLF001
        finished._values = values  # noqa: SLF001
        finished._struct = struct.Struct("<" + pattern)  # noqa: SLF001
        return finished  # type: ignore[no-any-return]


class Layout(metaclass=_LayoutMeta):
    """The base of every fixed-size structure; see the module's description."""

    __slots__ = ()

    SIZE: ClassVar[int] = 0
    _table: ClassVar[tuple[_Field, ...]] = ()
    _format: ClassVar[str] = ""
    _values: ClassVar[int] = 0
    _struct: ClassVar[struct.Struct] = struct.Struct("<")

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """The structure in ``data``, which must be exactly ``SIZE`` bytes.

        Raises ``malformed.truncated``, ``malformed.trailing_data`` or ``malformed.reserved_not_zero``.
        """
        if len(data) != cls.SIZE:
            leaf = "truncated" if len(data) < cls.SIZE else "trailing_data"
            raise MalformedError(leaf, f"{cls.__name__} is {cls.SIZE} bytes, not {len(data)}")
        return cls._build(cls._struct.unpack(data), 0, 0)

    @classmethod
    def offset(cls, name: str) -> int:
        """The offset in bytes of the field ``name``."""
        for field in cls._table:
            if field.name == name:
                return field.offset
        raise KeyError(name)

    @classmethod
    def _build(cls, values: tuple[Any, ...], index: int, base: int) -> Self:
        arguments: dict[str, Any] = {}
        for field in cls._table:
            spec = field.spec
            if isinstance(spec, (_Integer, Raw)):
                arguments[field.name] = values[index]
            elif isinstance(spec, Zero):
                if values[index].count(0) != spec.size:
                    raise MalformedError(
                        "reserved_not_zero",
                        f"{cls.__name__}.{field.name} at offset {base + field.offset:#x} is not zero",
                    )
                arguments[field.name] = values[index]
            elif isinstance(spec, Array):
                arguments[field.name] = _build_array(spec, values, index, base + field.offset)
            else:
                arguments[field.name] = spec._build(values, index, base + field.offset)  # noqa: SLF001
            index += field.values
        return cls(**arguments)

    def encode(self) -> bytes:
        """The ``SIZE`` bytes of this structure; ``malformed.length_mismatch`` if a field does not fit its place."""
        values: list[Any] = []
        self._flatten(values)
        return self._struct.pack(*values)

    def _flatten(self, values: list[Any]) -> None:
        for field in self._table:
            _flatten(field.spec, getattr(self, field.name), f"{type(self).__name__}.{field.name}", values)


def _build_array(spec: Array, values: tuple[Any, ...], index: int, base: int) -> tuple[Any, ...]:
    if isinstance(spec.element, (_Integer, Raw)):
        return values[index : index + spec.count]
    layout: type[Layout] = spec.element
    return tuple(
        layout._build(values, index + i * layout._values, base + i * layout.SIZE)  # noqa: SLF001
        for i in range(spec.count)
    )


def _flatten(spec: Any, value: Any, where: str, values: list[Any]) -> None:
    if isinstance(spec, _Integer):
        if type(value) is not int or not 0 <= value < 1 << (8 * spec.size):
            raise MalformedError("length_mismatch", f"{where} does not fit {spec.size} bytes")
        values.append(value)
    elif isinstance(spec, (Raw, Zero)):
        if not isinstance(value, bytes) or len(value) != spec.size:
            raise MalformedError("length_mismatch", f"{where} must be {spec.size} bytes")
        if isinstance(spec, Zero) and any(value):
            raise MalformedError("reserved_not_zero", f"{where} must be zero")
        values.append(value)
    elif isinstance(spec, Array):
        if not isinstance(value, tuple) or len(value) != spec.count:
            raise MalformedError("length_mismatch", f"{where} must have {spec.count} elements")
        for element in value:
            _flatten(spec.element, element, where, values)
    else:
        if type(value) is not spec:
            raise MalformedError("length_mismatch", f"{where} must be a {spec.__name__}")
        value._flatten(values)  # noqa: SLF001
