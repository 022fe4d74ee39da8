"""MBPP+'s inputs as the tasks want them: JSON has neither tuples nor sets nor complex numbers."""

from collections.abc import Callable, Sequence

# Which lists of a task's inputs are tuples, sets or other types (EvalPlus 0.3.1). An input is
# the list of one call's arguments.
_ARGUMENTS = frozenset(
    (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726,
     740, 744, 809)
)  # fmt: skip
_ITEMS = frozenset((63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780))
_ITEMS_OF_FIRST = frozenset((75, 413, 444, 753))
_SECOND = frozenset((106, 750))
_FIRST = frozenset((250, 307, 405, 446, 617, 720, 763, 808))
_ARGUMENTS_AND_ITEMS = frozenset((259, 401, 445))
_EVERYTHING = frozenset((580, 615, 791))


def mbpp_inputs(number: int, calls: Sequence[list]) -> list[list]:
    """The arguments of every call of task `Mbpp/<number>`."""
    convert = _converter(number)
    return [list(convert(call)) for call in calls]


def _converter(number: int) -> Callable[[list], Sequence]:
    if number in _SPECIAL:
        return _SPECIAL[number]
    for tasks, convert in _FORMS:
        if number in tasks:
            return convert
    return lambda call: call


def _all_tuples(value: object) -> object:
    return tuple(map(_all_tuples, value)) if isinstance(value, list) else value


def _tuple_if_list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


_FORMS: tuple[tuple[frozenset[int], Callable[[list], Sequence]], ...] = (
    (_ARGUMENTS, lambda call: [tuple(a) for a in call]),
    (_ITEMS, lambda call: [[tuple(item) for item in a] for a in call]),
    (_ITEMS_OF_FIRST, lambda call: [[tuple(item) for item in call[0]], *call[1:]]),
    (_SECOND, lambda call: [call[0], tuple(call[1])]),
    (_FIRST, lambda call: [tuple(call[0]), *call[1:]]),
    (_ARGUMENTS_AND_ITEMS, lambda call: [tuple(tuple(item) for item in a) for a in call]),
    (_EVERYTHING, lambda call: [_all_tuples(a) for a in call]),
)

_SPECIAL: dict[int, Callable[[list], Sequence]] = {
    115: lambda call: [[set(i) if isinstance(i, list) and i else {} for i in call[0]]],
    124: lambda call: [float(call[0]), complex(call[1])],
    252: lambda call: [complex(call[0])],
    278: lambda call: [tuple(map(_tuple_if_list, call[0]))],
    722: lambda call: [{k: tuple(v) for k, v in call[0].items()}, *call[1:]],
}
