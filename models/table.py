"""Raw lines and tables: the shape of what a shop sends, and how it becomes rows."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec
import numpy as np
import polars as pl
from msgspec.inspect import IntType, ListType, StrType, StructType, UnionType
from polars.datatypes import IntegerType

if TYPE_CHECKING:
    import pandera.polars as pa  # It takes seconds, and a look at the lake needs none of it.


@dataclass(frozen=True)
class RawLines:
    """Unvalidated lines of one source, byte for byte: line `i` is `data[starts[i]:ends[i]]`."""

    source: str
    """Path, s3:// address, or kafka://topic/partition."""
    data: bytes
    starts: np.ndarray
    """int64."""
    ends: np.ndarray
    """int64, exclusive, without the line feed."""
    numbers: np.ndarray
    """int64: line or row numbers in a file, from 1; or Kafka offsets."""

    @classmethod
    def of(
        cls, source: str, lines: Sequence[bytes], numbers: Sequence[int] | np.ndarray | None = None
    ) -> "RawLines":
        """Lines as they are, whatever bytes are in them; `numbers` count from 1 by default."""
        lengths = np.fromiter(map(len, lines), np.int64, len(lines))
        ends = np.cumsum(lengths)
        if numbers is None:
            numbers = np.arange(1, len(lines) + 1)
        return cls(source, b"".join(lines), ends - lengths, ends, np.asarray(numbers, np.int64))

    @classmethod
    def cut(cls, source: str, data: bytes, first: int) -> "RawLines":
        """`data` cut at its line feeds, the first line being number `first`.

        The last line may lack a line feed.
        """
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        if data and not data.endswith(b"\n"):
            ends = np.append(ends, len(data))
        starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
        return cls(source, data, starts, ends, np.arange(first, first + len(ends)))

    def __len__(self) -> int:
        return len(self.ends)

    def line(self, i: int) -> bytes:
        """Line at position `i`, counted from 0."""
        return self.data[self.starts[i] : self.ends[i]]

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return len(self.data)


@dataclass(frozen=True)
class RawRows:
    """Unvalidated rows of one flat source, by its own columns."""

    source: str
    frame: pl.DataFrame
    """The source's columns, as they are stored there; those of CSV are text."""
    numbers: np.ndarray
    """int64: the number of each row in the file, from 1; then those of `broken`."""
    broken: Sequence[tuple[int, str, str]] = ()
    """Position, from the frame's height on, reason code and rule of what is no row."""
    texts: Sequence[bytes] = ()
    """Of `broken`, as they are stored."""
    blank: int = 0
    """Number of blank lines, which have no number."""

    def __len__(self) -> int:
        return self.frame.height + len(self.broken) + self.blank

    def line(self, i: int) -> bytes:
        """The row at position `i` as an object of JSON, or the text that is no row."""
        if i >= self.frame.height:
            return self.texts[i - self.frame.height]
        return msgspec.json.encode(self.frame.row(i, named=True))

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return int(self.frame.estimated_size())


@dataclass(frozen=True)
class Table:
    """The Delta table that a model type learns from, and how a raw line becomes its rows."""

    name: str
    line: type[msgspec.Struct]
    """Shape of one raw JSON line, unknown fields forbidden.

    What does not decode into it is quarantined. A line is one row. Where one field is a list of
    structs, a line is one row for each item of it, with the other fields repeated."""
    schema: "type[pa.DataFrameModel]"
    """Pandera rules of the rows."""
    key: tuple[str, ...]
    """Columns that identify a row: a second row with the same values is a duplicate."""
    time: str
    """Column with the event time, Int64 milliseconds since 1970 UTC."""
    group: str
    """Column whose values are the independent units: sessions are split, and resampled, whole."""
    lasting: bool = False
    """Whether a group goes on for weeks, as a customer does, not for an hour, as a session does.

    A lasting group is cut in time: a training has its rows before the hold-out, and its rows in the
    hold-out are judged; a distrusted stretch costs it the rows of that stretch. What a request
    needs to know of earlier rows has to stand in the row. Groups that do not last are whole: they
    are judged if they began in the hold-out, and left out if they touch a distrusted stretch."""

    @cached_property
    def items(self) -> str | None:
        """Field of `line` that is a list of structs."""
        for field in _fields(self.line):
            if isinstance(field.type, ListType) and isinstance(field.type.item_type, StructType):
                return field.name
        return None

    @cached_property
    def flat(self) -> "Table | None":
        """The same table, of which a line is a single row; None if that is so already."""
        if self.items is None:
            return None
        hints = get_type_hints(self.line, include_extras=True)
        (items,) = (field for field in _fields(self.line) if field.name == self.items)
        item = items.type.item_type  # type: ignore[attr-defined]
        hints |= get_type_hints(item.cls, include_extras=True)
        fields = [*(f for f in _fields(self.line) if f.name != self.items), *item.fields]
        row = msgspec.defstruct(
            f"{self.line.__name__}Row",
            [
                (f.name, hints[f.name], msgspec.field(name=f.encode_name, default=f.default))
                for f in fields
            ],
            forbid_unknown_fields=True,
            kw_only=True,
            gc=False,
        )
        return replace(self, line=row)

    @cached_property
    def order(self) -> list[str]:
        """Columns by which rows are sorted wherever their order counts."""
        return list(dict.fromkeys((self.group, self.time, *self.key)))

    def within(self, start: int) -> pl.Expr:
        """Which rows are judged in a stretch from `start` (ms) to the newest row."""
        time = pl.col(self.time)
        if self.lasting:
            return time >= start
        return time.min().over(self.group) >= start

    @cached_property
    def dtypes(self) -> pl.Schema:
        """Columns of the rows and their types.

        Raises ValueError if `line` and `schema` do not fit together.
        """
        dtypes = self.schema.empty().schema
        if self._field_types.keys() != set(dtypes):
            raise ValueError(
                f"Table {self.name}: {self.line.__name__} has the fields "
                f"{sorted(self._field_types)}, {self.schema.__name__} the columns "
                f"{sorted(dtypes)}. Make them the same."
            )
        return dtypes

    @cached_property
    def narrow(self) -> dict[str, tuple[int, int]]:
        """Least and largest whole number of each column that holds fewer than its field takes."""
        ranges = {
            name: pl.select(least=dtype.min(), largest=dtype.max()).row(0)
            for name, dtype in self.dtypes.items()
            if isinstance(dtype, IntegerType)
        }
        return {n: r for n, r in ranges.items() if not _is_within(self._field_types[n], *r)}

    @cached_property
    def names(self) -> frozenset[str]:
        """Columns of ids: text, for which a field takes whole numbers, too."""
        return frozenset(
            name
            for name, field_type in self._field_types.items()
            if isinstance(field_type, UnionType)
            and {type(member) for member in field_type.types} == {StrType, IntType}
        )

    @cached_property
    def _field_types(self) -> dict[str, msgspec.inspect.Type]:
        """Types of the fields of a line and of the items in its list, by column."""
        types: dict[str, msgspec.inspect.Type] = {}
        for field in _fields(self.line):
            if field.name == self.items:
                assert isinstance(field.type, ListType)
                assert isinstance(field.type.item_type, StructType)
                types |= {item.name: item.type for item in field.type.item_type.fields}
            else:
                types[field.name] = field.type
        return types

    def unfold(self, lines: Sequence[Any], positions: Sequence[int] | None = None) -> pl.DataFrame:
        """Decoded lines to rows, not validated.

        Column `line` (UInt32) holds the position of each row's line: of `positions`, or from 0.
        """
        if positions is None:
            positions = range(len(lines))
        if self.items is None:
            items = lines
            counts = np.ones(len(lines), np.int64)
            own: set[str] = set()
        else:
            lists = [getattr(line, self.items) for line in lines]
            items = list(itertools.chain.from_iterable(lists))
            counts = np.fromiter(map(len, lists), np.int64, len(lines))
            own = set(self.line.__struct_fields__) - {self.items}
        index = np.repeat(np.arange(len(lines), dtype=np.uint32), counts)
        columns = {"line": pl.Series("line", positions, pl.UInt32).gather(index)}
        for name, dtype in self.dtypes.items():
            if name in own:
                columns[name] = _column(name, lines, dtype).gather(index)
            else:
                columns[name] = _column(name, items, dtype)
        return pl.DataFrame(columns)


def _column(name: str, records: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    """The field of each record; in a column of text, or of lists of texts, a whole number is its
    digits."""
    values = [getattr(record, name) for record in records]
    if dtype == pl.String:
        values = [_digits(value) for value in values]
    elif dtype == pl.List(pl.String):
        values = [value and [*map(_digits, value)] for value in values]
    return pl.Series(name, values, dtype, strict=True)


def _digits(value: Any) -> Any:
    """A whole number as text, anything else as it is."""
    if isinstance(value, int):
        return str(value)
    return value


def _is_within(field_type: msgspec.inspect.Type, least: int, largest: int) -> bool:
    """Whether all that a field takes are whole numbers from `least` to `largest`."""
    if not isinstance(field_type, IntType):
        return False
    lows = [field_type.ge, None if field_type.gt is None else field_type.gt + 1]
    highs = [field_type.le, None if field_type.lt is None else field_type.lt - 1]
    low = max((bound for bound in lows if bound is not None), default=-math.inf)
    high = min((bound for bound in highs if bound is not None), default=math.inf)
    return low >= least and high <= largest


def _fields(struct: type[msgspec.Struct]) -> tuple[msgspec.inspect.Field, ...]:
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, StructType)
    return info.fields
