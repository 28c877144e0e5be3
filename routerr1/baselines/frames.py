"""Pickled data frames, read without running what they may hold.

A pickle can name any function to call. Only the few that a data frame of plain values needs are allowed.
"""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from routerr1.errors import DataError

_PANDAS = {
    ("pandas", "DataFrame"),
    ("pandas", "Index"),
    ("pandas", "RangeIndex"),
    ("pandas", "StringDtype"),
    ("pandas.arrays", "ArrowStringArray"),
    ("pandas.arrays", "StringArray"),
    ("pandas.core.frame", "DataFrame"),
    ("pandas.core.internals.managers", "BlockManager"),
    ("pandas._libs.internals", "_unpickle_block"),
    ("pandas.core.indexes.base", "_new_Index"),
    ("pandas.core.indexes.base", "Index"),
    ("pandas.core.indexes.range", "RangeIndex"),
    ("pandas.core.arrays.string_", "StringArray"),
    ("pandas.core.arrays.string_", "StringDtype"),
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"),
    ("builtins", "bytearray"),
    ("builtins", "slice"),
}
_NUMPY = {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (
        ("multiarray", "_reconstruct"),
        ("multiarray", "scalar"),
        ("numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype")}
_ARROW = {
    ("pandas.core.arrays.string_arrow", "ArrowStringArray"),
    ("pyarrow.lib", "chunked_array"),
    ("pyarrow.lib", "type_for_alias"),
    ("pyarrow.lib", "_restore_array"),
    ("pyarrow.lib", "py_buffer"),
    ("pyarrow.lib", "string"),
    ("pyarrow.lib", "large_string"),
}
ALLOWED = _PANDAS | _NUMPY | _ARROW


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which a table does not need")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_frame(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a pickled data frame.

    Raises: DataError naming the file, and what it holds beside a table.
    """
    import pandas as pd

    try:
        with path.open("rb") as stream:
            frame = _Unpickler(stream).load()
    except (
        OSError,
        EOFError,
        pickle.UnpicklingError,
        AttributeError,
        ImportError,
        ValueError,
        TypeError,
        LookupError,
    ) as error:
        raise DataError(f"{path}: cannot be read as a pickled table ({error})") from None
    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"{path}: holds a {type(frame).__name__}, not a table")
    for row in frame.to_dict("records"):
        yield {str(key): value for key, value in row.items()}
