"""From a specification to text: docstrings in four shapes, solutions in five styles."""

import ast
import random
import re
from collections.abc import Mapping

from rrtf.nano.grammar import Operation, Spec, fill, operations, vocabulary

STYLES = ("expression", "loop", "nested", "mixed")  # pre-training draws from these
CANONICAL = "canonical"  # one statement a step, first expression of each operation

ONE_PASS = "Visit every element only once."


def docstring(spec: Spec, argument: str, rng: random.Random) -> str:
    """A description of `spec` in one of four shapes: noun phrase, sentence, list, or split."""
    shapes = (_as_noun, _as_sentence, _as_list, _as_split)
    shape = rng.choice(shapes if len(spec.steps) > 1 else shapes[:2])
    return shape(spec, argument, rng)


def _verbs(spec: Spec, rng: random.Random) -> list[str]:
    return [fill(rng.choice(operations()[s.name].verbs), s.parameters) for s in spec.steps]


def _as_noun(spec: Spec, argument: str, rng: random.Random) -> str:
    kind = vocabulary()[spec.takes]
    text = rng.choice([argument, argument, kind["plain"].replace("{x}", argument)])
    for step in spec.steps:
        noun = rng.choice(operations()[step.name].nouns)
        text = fill(noun, step.parameters).replace("{x}", text)
    description = rng.choice(kind["descriptions"])
    return rng.choice(
        [f"Return {text}.", f"Compute {text}.", f"Given {description}, return {text}."]
    )


def _as_sentence(spec: Spec, argument: str, rng: random.Random) -> str:
    verbs = _verbs(spec, rng)
    what = f"{rng.choice(vocabulary()[spec.takes]['descriptions'])} {argument}"
    start = rng.choice([f"Given {what}, ", f"Take {what}, ", f"For {what}: "])
    if len(verbs) == 1:
        return start + verbs[0] + rng.choice([" and return the result.", " and return it."])
    middle = rng.choice([", then ", "; then ", ", "]).join(verbs[:-1])
    last = rng.choice([", and finally ", " and then ", ", then "]) + verbs[-1]
    end = rng.choice([". Return the result.", ", and return the result.", "."])
    return start + middle + last + end


def _as_list(spec: Spec, argument: str, rng: random.Random) -> str:
    bullet = rng.choice(["-", "{i}.", "{i})"])
    what = f"{rng.choice(vocabulary()[spec.takes]['descriptions'])} {argument}"
    first = rng.choice(
        [
            f"Apply these steps to {argument}:",
            f"Perform the following on {what}:",
            f"Steps for {argument}:",
        ]
    )
    verbs = enumerate(_verbs(spec, rng), start=1)
    lines = [f"    {bullet.replace('{i}', str(i))} {verb}" for i, verb in verbs]
    last = rng.choice(["    Return the final result.", "    and return the result."])
    return "\n".join([first, *lines, last])


def _as_split(spec: Spec, argument: str, rng: random.Random) -> str:
    verbs = [verb[0].upper() + verb[1:] for verb in _verbs(spec, rng)[:-1]]
    last = spec.steps[-1]
    before = operations()[spec.steps[-2].name].gives
    so_far = rng.choice(vocabulary()[before]["so_far"])
    noun = fill(rng.choice(operations()[last.name].nouns), last.parameters)
    head = rng.choice(["Then return ", "Return ", "Finally, return "])
    return ". ".join(verbs) + ". " + head + noun.replace("{x}", so_far) + "."


def reference_program(spec: Spec, name: str = "reference") -> str:
    """The canonical solution with plain names, as a whole function of one argument."""
    lines = [f"def {name}(a0):"]
    for number, step in enumerate(spec.steps):
        operation = operations()[step.name]
        text = f"{{o}} = {operation.expressions[0]}" if operation.expressions else ""
        block = _write(text or operation.blocks[0], step.parameters, "x")
        block = block.replace("{v}", f"a{number}").replace("{o}", f"a{number + 1}")
        lines += ["    " + line for line in block.split("\n")]
    return "\n".join([*lines, f"    return a{len(spec.steps)}"]) + "\n"


def _write(template: str, parameters: tuple, item: str) -> str:
    return fill(template, parameters).replace("@", item)


class _Body:
    """The statements of a solution under construction, and the names taken so far."""

    def __init__(self, argument: str, rng: random.Random):
        self.lines: list[str] = []
        self.taken = {argument}
        self.value = argument  # the expression that holds the result so far
        self.rng = rng

    def name(self, kind: str) -> str:
        free = [n for n in vocabulary()[kind]["results"] if n not in self.taken]
        return self.rng.choice(free) if free else f"res{len(self.lines)}"

    def item(self, kind: str) -> str:
        free = [n for n in vocabulary()[kind]["loop_variables"] if n not in self.taken]
        return self.rng.choice(free or ["x"])

    def assign(self, name: str, expression: str) -> None:
        self.lines.append(f"{name} = {expression}")
        self.taken.add(name)
        self.value = name

    @property
    def is_name(self) -> bool:
        return self.value.isidentifier()

    def operand(self) -> str:
        """The value so far, in parentheses where precedence needs them."""
        loose = (ast.BinOp, ast.Compare, ast.IfExp, ast.BoolOp, ast.UnaryOp, ast.Lambda)
        node = ast.parse(self.value, mode="eval").body
        return f"({self.value})" if isinstance(node, loose) else self.value


def solution(
    spec: Spec,
    argument: str,
    style: str,
    rng: random.Random,
    *,
    table: Mapping[str, Operation] | None = None,
) -> str:
    """The indented body of a function in `style` (one of STYLES, or CANONICAL).

    It is correct for the operations of `table` (default: the grammar's).
    """
    table = table or operations()
    body = _Body(argument, rng)
    reuse = rng.random() < 0.35
    for number, step in enumerate(spec.steps):
        operation = table[step.name]
        way = rng.choice(STYLES[:3]) if style == "mixed" else style
        following = spec.steps[number + 1] if number + 1 < len(spec.steps) else None
        item = body.item(operation.takes)
        as_block = bool(way == "loop" and operation.blocks) or not operation.expressions
        once = bool(operation.expressions) and operation.expressions[0].count("{v}") == 1
        if not body.is_name and (as_block or not once):
            body.assign(body.name(operation.takes), body.value)
        same = reuse and way != "loop" and not as_block
        same = same and body.is_name and body.value != argument
        name = body.value if same and operation.takes == operation.gives else None
        name = name or body.name(operation.gives)
        if as_block:
            block = _write(rng.choice(operation.blocks), step.parameters, item)
            body.lines += block.replace("{v}", body.value).replace("{o}", name).split("\n")
            body.taken.add(name)
            body.value = name
            continue
        expression = _write(_expression(operation, style, rng), step.parameters, item)
        expression = expression.replace("{v}", body.operand())
        if way == "nested" and following and _nests(table[following.name]):
            body.value = expression
            body.taken.add(item)
        elif following:
            body.assign(name, expression)
        else:
            body.value = expression
    lines = [*body.lines, f"return {body.value}"]
    return "\n".join("    " + line for line in lines) + "\n"


def _expression(operation: Operation, style: str, rng: random.Random) -> str:
    if style == CANONICAL or rng.random() < 0.75:
        return operation.expressions[0]
    return rng.choice(operation.expressions)


def _nests(operation: Operation) -> bool:
    """Whether an operation uses its input exactly once, so that an expression may stand there."""
    return len(operation.expressions) == 1 and operation.expressions[0].count("{v}") == 1


def prompt(name: str, argument: str, text: str, examples: list[tuple[str, str]], form: str) -> str:
    """Signature and docstring; `examples` are (input, output) sources, `form` doctest or equals."""
    lines = [f'    """{text}']
    for given, expected in examples:
        if form == "doctest":
            lines += [f"    >>> {name}({given})", f"    {expected}"]
        else:
            lines.append(f"    Example: {name}({given}) == {expected}")
    return "\n".join([f"def {name}({argument}):", *lines, '    """']) + "\n"


def misdirection(wrong: Spec, argument: str) -> str:
    """A note with code that solves a neighbouring problem, marked as wrong."""
    code = solution(wrong, argument, CANONICAL, random.Random(0))
    return "\n    This code is wrong:\n" + re.sub(r"^", "    ", code.rstrip("\n"), flags=re.M)
