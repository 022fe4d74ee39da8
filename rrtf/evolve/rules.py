"""Which rows are kept: WizardLM's elimination of failed evolutions, and rules made by hand.

A rule is a function from a row (or a text and its parent's) to the reason why it goes, '' if it
stays. The paper cuts 100K rows to 68K by rules it does not list; these are ours. What they cannot
see: whether an answer is right (tests do), or whether a task resembles a benchmark's (the audit).
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from rrtf import prompts, similarity
from rrtf.engines.endpoint import Reply
from rrtf.evolve.asking import task_text, wording
from rrtf.evolve.seeds import function_of
from rrtf.prompts import code_of
from rrtf.records import Instruction

Rule = Callable[[Instruction], str]
Dropped = tuple[Instruction, str]  # a row and why it went

MIN_NEW_WORDS = 3  # of an evolution, beside those of its parent; the methods ask for ten
COPIED_WORDS = 12  # in a row, of the request: no task has that by chance
TASK_WORDS = (4, 300)
CODE_LINES = 100
NEAR = 0.8  # Jaccard from which two tasks are nearly one
LAYERS = 8  # of what stands around a task that are taken off
WORDS_OF_AN_APOLOGY = 80  # WizardLM's: an answer that is longer says something beside it

_STOP_WORDS = frozenset(
    similarity.words(
        "a an and are as at be but by can do for from has have here how i if in into is it its me "
        "my no not of on or our please so such that the their then there these they this to was "
        "we what which will with would yes you your sure ok okay"
    )
)
_APOLOGY = re.compile(
    r"\b(?:i(?:'|\u2019)?m|i am|we are)\s+(?:very |so |really )?(?:sorry|afraid|unable|not able)\b"
    r"|^\W*(?:sorry|apologies|unfortunately)\b|\bi apologi[sz]e\b"
    r"|\bas an? (?:ai|artificial|language) (?:language )?(?:model|assistant|intelligence)\b"
    r"|\bi (?:cannot|can not|can(?:'|\u2019)t|won(?:'|\u2019)t|will not) "
    r"(?:help|assist|provide|answer|fulfil|complete|comply|solve|write|generate|create|rewrite)\b",
    re.IGNORECASE,
)
_BLOCK = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)
_ONE_BLOCK = re.compile(r"(`{3,}|~{3,})[^`\n]*\n((?:(?!\1).)*?)\n[ \t]*\1", re.DOTALL)
# What models say before a task, which is matched where the text begins: a word to the reader up to
# a colon or an empty line; a line that announces it; a label; the role that a template writes.
_NOUN = r"(?:task|problem|prompt|question|instruction|challenge|exercise|version|statement)s?\b"
_KIND = (
    r"(?:(?:the|a|an|your|my|new|more|slightly|harder|evolved|rewritten|revised|updated|modified|"
    r"improved|demanding|challenging|difficult|complex|advanced|final|coding|programming|python)\b"
    r"[ \t]*)*"
)
_YES = r"(?:certainly|sure|of course|absolutely|okay|ok|alright|great|got it|understood)\b"
_HERE = r"(?:here(?:'|\u2019)?s|here (?:is|are)|below is|this is|i(?:'|\u2019)?ve|i have)\b"
_BEFORE = re.compile(
    rf"(?:{_YES}|{_HERE})[^\n:]{{0,80}}\b{_NOUN}[^\n:]{{0,40}}:[*_]*"
    rf"|(?:{_YES}|here(?:'|\u2019)?s|here (?:is|are)\b)[^\n]*:\s*\n(?=\s*\S)"
    rf"|(?:{_YES}[^\n]*|{_HERE}[^\n]{{0,80}}\b{_NOUN}[^\n]{{0,40}})\n[ \t]*\n"
    rf"|[#*_ \t]*{_KIND}{_NOUN}(?:[ \t]+(?:description|statement)\b)?[*_ \t]*(?::[*_]*|\n)"
    r"|\[/INST\]|assistant\s*[:\n]",
    re.IGNORECASE,
)
_BEHIND = re.compile(
    r"\n[ \t]*\n\W{0,9}(?:let me know|(?:i )?hope (?:this|that|it|you)|feel free|would you like|"
    r"do you want|happy coding|good luck|i(?:(?:'|\u2019)ve| have)? (?:added|made|changed|replaced|"
    r"kept|introduced|modified)|this (?:version|revision|rewrite))\b.*\Z",
    re.IGNORECASE | re.DOTALL,
)
_AROUND = (
    ('"""', '"""'), (", "), ("```", "```"), ('"', '"'), ("\u201c", "\u201d"), ("**", "**"),
    ("<<<", ">>>"), ("\\boxed{", "}"), ("---\n", "\n---"),
)  # fmt: skip
_TAGGED = re.compile(r"<(\w+)>(.*)</\1>", re.DOTALL)
# What is left of such words, of a template or of tags shows that a text is not the task alone.
_BESIDE = re.compile(
    rf"\A[^\x00-\x7f][^\n]*[:\uff1a]\s*\n"
    rf"|\A\W{{0,9}}(?:{_YES}[!,.:]|{_HERE}[^\n]*\b(?:task|version|prompt)\b)"
    r"|\A\s*</?[a-z_]+>|<[|\uff5c][^|\uff5c<>\n]+[|\uff5c]>|</s>|\[/?INST\]"
    r"|\b(?:let me know|hope (?:this|that|it) helps|feel free to|would you like me to)\b"
    r"|\bi(?:(?:'|\u2019)ve|(?:'|\u2019)ll| have| will)? "
    r"(?:add(?:ed)?|made|make|changed?|replaced?|modif(?:y|ied)|rewrote|rewritten|increased?)\b",
    re.IGNORECASE,
)
_FENCE_NAME = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*([\w+#.-]+)", re.MULTILINE)
_OTHER_LANGUAGE = re.compile(
    r"(?<![\w.])(?i:javascript|java|typescript|node\.?js|jquery|react(?:\.?js| native)|"
    r"vue(?:\.?js)|angular(?:js)?|php|laravel|kotlin|golang|scala|haskell|matlab|fortran|cobol|"
    r"perl|ruby|lua|visual basic|vb\.net|objective-c|assembly (?:language|code|program)|bash|"
    r"shell script|powershell|prolog|lisp|clojure|erlang|elixir)(?!\w)"
    r"|(?<!\w)(?i:c\+\+|c#)|\b(?:Swift|Rust|Julia)\b"
    r"|\b(?:in|using) (?:C|Go|R)\b(?! ?[-'\"=+\w]*[=+])"
    r"|\b(?:C|Go|R) (?:program|code|function|language|struct|snippet|script)\b"
)
_OTHER_NOTATION = re.compile(  # Python functions write and read these
    r"\b(?:html5?|css3?|sass|sql|mysql|sqlite|postgresql|mongodb|xpath|latex|unix|linux|regex|"
    r"regular expression|react|vue|rails)\b",
    re.IGNORECASE,
)
_PYTHON_NAMED = re.compile(r"\b(?:python|numpy|pandas|django|flask)", re.IGNORECASE)


def failed_evolution(reply: Reply, parent: Instruction, asked: str) -> str:
    """Why a rewritten task is no success: the reasons of WizardLM in order, '' if it is one.

    `asked` is the request it answers, whose words it must not copy.
    """
    text = rewritten(reply.text)
    return (
        no_text(reply)
        or ("the task is an apology" if apologises(text) else "")
        or adds_nothing(text, task_text(parent))
        or leaves_traces(text, task_text(parent))
        or copies_request(text, asked, task_text(parent))
        or says_more(text, task_text(parent))
    )


def failed_answer(reply: Reply, task: str) -> str:
    """Why an answer shows that its task cannot be answered, '' if it may be one."""
    found = no_text(reply)
    if found or (apologises(reply.text) and len(reply.text.split()) < WORDS_OF_AN_APOLOGY):
        return f"answer: {found or 'an apology'}"
    if similarity.normalise(reply.text) == similarity.normalise(task):
        return "answer: the task itself"
    if not code_of(reply.text).strip() or not _has_code(reply.text):
        return "answer: no Python code"
    return ""


def rewritten(text: str) -> str:
    """The task in a reply: without reasoning, lines that announce it or speak of it, and quotes,
    tags or fences around all of it."""
    text = prompts.without_reasoning(text).strip()
    for _ in range(LAYERS):
        text = _unwrapped(text).strip()
    return text


def _unwrapped(text: str) -> str:
    """`text` without one layer of what stands around it."""
    if (found := _BEFORE.match(text)) or (found := _BEHIND.search(text)):
        return text[: found.start()] + text[found.end() :] or text
    if block := _ONE_BLOCK.fullmatch(text):
        return block[2]
    if tagged := _TAGGED.fullmatch(text):
        return tagged[2]
    if all(line.startswith(">") for line in text.split("\n")):
        return "\n".join(line[1:].removeprefix(" ") for line in text.split("\n"))
    for begin, end in _AROUND:
        inside = text[len(begin) : -len(end)]
        if text.startswith(begin) and text.endswith(end) and inside and end not in inside:
            return inside
    return text


def says_more(text: str, parent: str) -> str:
    """A text that also speaks to its reader, or has tags of a template, unless its parent does."""
    beside = _BESIDE.search(_BLOCK.sub("", text))
    return "words beside the task" if beside and not _BESIDE.search(parent) else ""


NO_REPLY = "no reply"


def no_text(reply: Reply) -> str:
    """A reply that never came, was cut off, or says nothing."""
    if reply.error:
        return f"{NO_REPLY}: {reply.error}"
    if reply.finish_reason == "length":
        return "cut off at the longest reply"
    if not set(similarity.words(prompts.without_reasoning(reply.text))) - _STOP_WORDS:
        return "only punctuation and stop words"
    return ""


def apologises(text: str) -> bool:
    """Whether the prose of `text` (outside of blocks and of whole programs) declines to answer."""
    if prompts.parses(text) and _defines_anything(text):
        return False
    return _APOLOGY.search(_BLOCK.sub("", prompts.without_reasoning(text))) is not None


def adds_nothing(text: str, parent: str) -> str:
    """A task with hardly more words than its parent has, or none but its parent's."""
    here, before = _all_words(text), _all_words(parent)
    more = Counter(here) - Counter(before)
    repeats = set(here) <= set(before) or more.total() < MIN_NEW_WORDS
    return "adds nothing to its parent" if repeats else ""


def leaves_traces(text: str, parent: str = "") -> str:
    """A task that speaks of the one it was made from, or of being made."""
    traces = wording()["traces"]
    if any(re.search(pattern, text, re.IGNORECASE) for pattern in traces["always"]):
        return "words of the request in the task"
    found, before = text.casefold(), parent.casefold()
    if parent and any(words in found and words not in before for words in traces["added"]):
        return "words of the request in the task"
    return ""


def copies_request(text: str, asked: str, parent: str) -> str:
    """A task that shares a long run of words with the request, but for those of its parent."""
    runs = [similarity.ngrams(_all_words(part), COPIED_WORDS) for part in (text, asked, parent)]
    return "sentences of the request in the task" if runs[0] & runs[1] - runs[2] else ""


def _all_words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.casefold())


def _has_code(text: str) -> bool:
    """A block, or a line that begins like a definition, an import or an assignment."""
    return (
        "```" in text
        or "~~~" in text
        or re.search(r"^(?:def|class|import|from|@|async)\b|^\w[\w, ]*=", text, re.MULTILINE)
        is not None
    )


def _defines_anything(program: str) -> bool:
    plain = (ast.Expr, ast.Name)
    return any(not isinstance(node, plain) for node in ast.parse(program).body)


def another_language(row: Instruction) -> str:
    """The task asks for another language and not for Python, or the answer's block names one.

    One that asks for HTML, SQL and the like may still be answered by a Python function.
    """
    text = task_text(row)
    tags = {tag.casefold() for tag in _FENCE_NAME.findall(row.output)}
    if tags and not tags & {"python", "python3", "py"}:
        return "another language than Python"
    if _PYTHON_NAMED.search(text):
        return ""
    if _OTHER_LANGUAGE.search(text) or (_OTHER_NOTATION.search(text) and not _is_function(row)):
        return "another language than Python"
    return ""


def unreadable(row: Instruction) -> str:
    """The answer is missing, an apology, or no Python 3."""
    if not row.output.strip():
        return "no answer"
    if apologises(row.output):
        return "the answer is an apology"
    return "" if prompts.parses(code_of(row.output)) else "the code does not parse as Python 3"


def no_function(row: Instruction) -> str:
    """The answer is not a function that takes arguments and returns a value (`function_of`)."""
    try:
        function_of(code_of(row.output), task_text(row))
    except ValueError as error:
        return str(error)
    return ""


def not_self_contained(row: Instruction) -> str:
    """The function, or what it calls, needs a package beside Python, input, or a file."""
    found = function_of(code_of(row.output), task_text(row))
    tree = ast.parse(found.head + found.body)
    packages = {name.partition(".")[0] for name in similarity.imported(tree)}
    if packages - sys.stdlib_module_names:
        return "the code needs a package beside Python"
    called = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    return "the code reads input or files" if called & {"input", "open"} else ""


def wrong_length(row: Instruction) -> str:
    """A task or a program that is much shorter or longer than one function needs."""
    words = len(task_text(row).split())
    if words < TASK_WORDS[0]:
        return f"the task has less than {TASK_WORDS[0]} words"
    if words > TASK_WORDS[1]:
        return f"the task has more than {TASK_WORDS[1]} words"
    long = len(code_of(row.output).strip().splitlines()) > CODE_LINES
    return f"the code has more than {CODE_LINES} lines" if long else ""


def leaked_words(row: Instruction) -> str:
    """The task or the prose of its answer has traces of a request for evolution."""
    return leaves_traces(task_text(row)) or leaves_traces(row.output)


HAND_MADE: tuple[Rule, ...] = (
    leaked_words, another_language, unreadable, no_function, not_self_contained, wrong_length,
)  # fmt: skip


def sieve(
    rows: Sequence[Instruction], *, threshold: float, rules: Sequence[Rule] = HAND_MADE
) -> tuple[list[Instruction], list[Dropped]]:
    """(rows that pass every rule and resemble no other kept row, the others with their reasons).

    The first rule that objects gives the reason; then repeated and near-equal tasks go, of which
    the one of the fewest rounds stays. What is kept does not depend on the order of `rows`, but
    for their ids. `threshold` as `near_equal`.
    """
    dropped: list[Dropped] = []
    passed = []
    for row in rows:
        reason = next((said for rule in rules if (said := rule(row))), "")
        if reason:
            dropped.append((row, reason))
        else:
            passed.append(row)
    repeats = repeated(passed)
    single = [row for row in passed if row.task_id not in repeats]
    repeats |= near_equal(single, threshold=threshold)
    dropped += [(row, repeats[row.task_id]) for row in passed if row.task_id in repeats]
    return [row for row in passed if row.task_id not in repeats], dropped


def repeated(rows: Sequence[Instruction]) -> dict[str, str]:
    """task_id -> reason, of rows whose task stands in an earlier one but for case and layout."""
    first: dict[str, str] = {}
    found = {}
    for row in sorted(rows, key=seniority):
        text = " ".join(task_text(row).casefold().split())
        if first.setdefault(text, row.task_id) != row.task_id:
            found[row.task_id] = "the same task as another row"
    return found


def near_equal(rows: Sequence[Instruction], *, threshold: float) -> dict[str, str]:
    """task_id -> reason, of rows whose task is nearly that of an earlier one that stays.

    Compared are sets of three neighbouring words (MinHash proposes, Jaccard >= `threshold`
    decides). Members of one family are not compared: a child keeps most of its parent's words,
    and whether it adds anything was decided when it was made.
    """
    ordered = sorted(rows, key=seniority)
    sets = [similarity.shingles(similarity.words(task_text(row)), 3) for row in ordered]
    pairs = similarity.near_duplicates(sets, sets, threshold=threshold, permutations=128, seed=1)
    gone: set[int] = set()
    for i, j, _ in sorted(pairs):
        if i < j and i not in gone and ordered[i].seed_id != ordered[j].seed_id:
            gone.add(j)
    return {ordered[j].task_id: "nearly the same task as another row" for j in sorted(gone)}


def seniority(row: Instruction) -> tuple:
    """Of equal tasks the first in this order stays: few rounds, then the id, numbers as such."""
    parts = re.split(r"(\d+)", row.task_id)
    return row.depth, [(int(p), "") if p.isdecimal() else (-1, p) for p in parts], row.task_id


def reason_counts(dropped: Iterable[Dropped]) -> dict[str, int]:
    """Dropped rows by reason, most frequent first; why there was no reply is not told apart."""
    kinds = (reason.partition(f"{NO_REPLY}: ") for _, reason in dropped)
    counts = Counter(before + (NO_REPLY if found else "") for before, found, _ in kinds)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _is_function(row: Instruction) -> bool:
    return not unreadable(row) and not no_function(row)
