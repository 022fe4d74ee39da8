"""Values as Python source that gives them back: also infinities, sets, complex and huge numbers."""

import math

_DECIMAL_BITS = 14_000  # beyond some 4,300 digits Python reads and writes no decimal numbers


def literal(value: object) -> str:
    """An expression without imports that evaluates to `value`, whatever the hash seed.

    ValueError for what is no bool, int, float, complex, str, bytes, list, tuple, dict, set,
    frozenset, type of these, or None.
    """
    kind = type(value)
    if kind is float:
        return repr(value) if math.isfinite(value) else f"float({str(value)!r})"
    if kind is int:
        return repr(value) if value.bit_length() < _DECIMAL_BITS else hex(value)
    if value is None or kind in (bool, str, bytes):
        return repr(value)
    if kind is complex:
        return f"complex({literal(value.real)}, {literal(value.imag)})"
    if kind is list:
        return f"[{', '.join(map(literal, value))}]"
    if kind is tuple:
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    if kind is dict:
        return f"{{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in value.items())}}}"
    if kind is set:
        return f"{{{', '.join(sorted(map(literal, value)))}}}" if value else "set()"
    if kind is frozenset:
        return f"frozenset({literal(set(value))})"
    if any(value is known for known in _TYPES):
        return value.__name__
    raise ValueError(f"a value of type {kind.__name__} cannot be written as a literal")


_TYPES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
