"""What the audit of real rows costs, what it finds by chance, and what the real seeds leak.

    python tests/benchmarks/bench_audit.py --data FOLDER [--only speed|chance|seeds] [--texts]

speed: the rows of Code Alpaca 20K and of one public evolution, grown by copies in which words are
exchanged, against all benchmarks at hand: CPU seconds of every step on one core, and the most
memory held, for a quarter, a half and all of them, each in a process of its own; beside them
datasketch as its manual has it (default hash, one shingle at a time), which does one of the steps.
chance: HumanEval, MBPP, LeetCode and CoderEval were written by different people. What a detector
finds between them is chance, so this is where thresholds and the size of generic code come from.
seeds: how many tasks of HumanEval and MBPP the 20,022 seeds leak, by detector, and the pairs, whose
texts are printed with --texts (the seeds' licence keeps them out of this repository).
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

from rrtf import benchmarks, similarity, store
from rrtf.audit import detectors, verdict, views
from rrtf.audit.rows import Corpus, Row, from_fields, from_problems, guess_fields, read
from rrtf.cli import audit, options

SEEDS = "code_alpaca/code_alpaca_20k.json.gz"
EVOLVED = "evolved/evol-codealpaca-2k-1.json.gz"
EXCHANGED = 0.05  # share of the words of a copy that another word takes the place of
APART = ("humaneval", "mbpp", "leetcode-v0.2-train", "codereval-subset")
PUBLISHED = "21 of 164 HumanEval tasks in Code Alpaca (an LLM judge; LMSYS, arXiv:2311.04850)"
OPTIONS = {option.name: option.value for option in options.options_of("audit")}
SETTINGS = detectors.Settings.of(OPTIONS)
LOOSE = {"embedding": 0.6}  # below this nearly every description has a neighbour
ONE_CORE = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
FORMS = ("words", "whole_words", "whole_tokens", "functions", "code_tokens")


def grown(data: Path, count: int, seed: int) -> list[dict]:
    """`count` rows: the real ones, then copies of them with words exchanged for others' words."""
    rows = [row for name in (SEEDS, EVOLVED) for _, row in store.read_rows(data / name)]
    draw = random.Random(seed)
    words = [word for row in rows for word in row["instruction"].split()]
    found = rows[:count]
    while len(found) < count:
        row = rows[len(found) % len(rows)]
        found.append({name: changed(text, words, draw) for name, text in row.items()})
    return found


def changed(text: str, words: list[str], draw: random.Random) -> str:
    """The text with some words exchanged; line breaks and indentation stay."""
    pieces = text.split(" ")
    return " ".join(draw.choice(words) if p and draw.random() < EXCHANGED else p for p in pieces)


def steps() -> dict[str, list]:
    """The detectors by family, with the options of the verb."""
    found = {one.names[0]: one.find for one in detectors.chosen(SETTINGS, {})}
    families = {
        "equal text, substrings": ("exact text", "normalised text", detectors.SUBSTRINGS[0]),
        "n-grams (5, 8, 13)": ("5-gram", "8-gram", "13-gram"),
        "MinHash-LSH (text, code)": ("minhash text", "minhash code"),
        "embedding (TF-IDF, LSA)": ("embedding",),
        "code (syntax trees)": ("code",),
    }
    return {family: [found[name] for name in names] for family, names in families.items()}


def audited(names: str, data: Path) -> dict[str, list[Row]]:
    problems = audit.load_problems(names.split(","), data=data)
    return {name: from_problems(members) for name, members in problems.items()}


def measured(data: Path, count: int, seed: int) -> dict[str, float]:
    """CPU seconds by step for `count` rows against all benchmarks, and memory in MB."""
    raw = grown(data, count, seed)
    tasks = audited("all", data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    wall, start = time.monotonic(), time.process_time()
    fields = guess_fields(raw[:1000], where="rows")
    rows = [from_fields(row, task_id=f"{n}", fields=fields) for n, row in enumerate(raw)]
    costs = {"rows, code found in them": time.process_time() - start}
    sides = Corpus(rows), Corpus.of_benchmarks(tasks)
    start = time.process_time()
    for form in FORMS:
        getattr(sides[0], form)
    costs["words, tokens, canonical code"] = time.process_time() - start
    findings = 0
    for name, family in steps().items():
        start = time.process_time()
        findings += sum(len(detect(*sides)) for detect in family)
        costs[name] = time.process_time() - start
    costs |= {"all": sum(costs.values()), "wall": time.monotonic() - wall, "findings": findings}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return costs | {"MB before": before, "MB": peak, "tasks": len(sides[1].rows)}


def peer(data: Path, count: int, seed: int) -> float:
    """CPU seconds of datasketch by its manual on the same descriptions: MinHash, then LSH."""
    from datasketch import MinHash, MinHashLSH

    def sketch(words: list[str]) -> MinHash:
        found = MinHash(num_perm=OPTIONS["minhash_permutations"])
        for shingle in similarity.shingles(words, OPTIONS["shingle"]):
            found.update(shingle.encode())
        return found

    tasks = audited("all", data)
    texts = [similarity.words(task.text) for members in tasks.values() for task in members]
    rows = [similarity.words(row["instruction"]) for row in grown(data, count, seed)]
    start = time.process_time()
    index = MinHashLSH(
        threshold=OPTIONS["minhash_threshold"], num_perm=OPTIONS["minhash_permutations"]
    )
    for at, words in enumerate(texts):
        index.insert(at, sketch(words))
    for words in rows:
        index.query(sketch(words))
    return time.process_time() - start


def speed(data: Path, count: int, seed: int) -> None:
    """Prints the table of costs, each column from a fresh process."""
    sizes = (count // 4, count // 2, count)
    told = []
    for size in sizes:
        command = [sys.executable, __file__, "--data", str(data), "--only", "measure",
                   "--rows", str(size), "--seed", str(seed)]  # fmt: skip
        run = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | ONE_CORE
        )
        told.append(json.loads(run.stdout.splitlines()[-1]))
    print(f"{sizes[-1]} rows against {told[-1]['tasks']} tasks; CPU seconds, one core")
    print(f"{'':34}" + "".join(f"{size:>10}" for size in sizes))
    for name in told[0]:
        digits = 0 if name.startswith("MB") or name in ("tasks", "findings") else 1
        what = {
            "all": "all, CPU seconds",
            "wall": "all, wall seconds (crowded machine)",
            "MB": "most memory, MB",
            "MB before": "of it before the audit",
        }.get(name, name)
        print(f"{what:36}" + "".join(f"{column[name]:>10.{digits}f}" for column in told)[2:])
    print(f"\nper row, of all to that of a quarter: "
          f"{told[-1]['all'] / sizes[-1] / (told[0]['all'] / sizes[0]):.2f}")  # fmt: skip
    theirs = peer(data, sizes[0], seed)
    print(f"datasketch by its manual, MinHash-LSH of {sizes[0]} descriptions alone: {theirs:.1f} s")


def chance(data: Path) -> None:
    """Prints what detectors find between benchmarks that different people wrote."""
    tasks = {name: from_problems(benchmarks.load(name, data=data)) for name in APART}
    found: dict[str, list] = {}
    generic = []
    thresholds = {"substring_words": 5, "ngram_share": 0.3, "minhash_threshold": 0.3}
    thresholds["embedding_threshold"] = LOOSE["embedding"]
    loose = detectors.chosen(replace(SETTINGS, **thresholds), {})
    for name, members in tasks.items():
        others = {other: tasks[other] for other in APART if other != name}
        sides = Corpus(members), Corpus.of_benchmarks(others)
        place = {(b, row.task_id): at for at, (b, row) in
                 enumerate(zip(sides[1].names, sides[1].rows, strict=True))}  # fmt: skip
        for leak in (leak for one in loose for leak in one.find(*sides)):
            size = sides[1].sizes[place[leak.benchmark, leak.benchmark_task_id]]
            found.setdefault(leak.detector, []).append((leak.score, leak, size))
            if leak.detector == "code":
                generic.append((size, leak.task_id, leak.benchmark_task_id))
    n = sum(map(len, tasks.values()))
    print(f"\n{n} tasks of {', '.join(APART)}, each against the others: tasks found at a score of")
    levels = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
    print(f"{'':24}" + "".join(f"{level:>6}" for level in levels) + "   highest")
    for name in (name for one in loose for name in one.names):
        hits = found.get(name, [])
        of = [_found(hits, level) if level >= LOOSE.get(name, 0) else "-" for level in levels]
        print(f"{name:24}" + "".join(f"{count:>6}" for count in of)
              + f"   {max((score for score, *_ in hits), default=0):.2f}")  # fmt: skip
    equal = sorted({(size, *sorted((a, b))) for size, a, b in generic})
    told = ", ".join(f"{a} = {b} ({size})" for size, a, b in equal)
    print(f"equal canonical functions (nodes of the syntax tree of the task's): {told}")


def _found(hits: list, level: float) -> int:
    return len({leak.task_id for score, leak, _ in hits if score >= level})


def seeds(data: Path, *, texts: bool) -> None:
    """Prints the audit of the 20,022 seeds against HumanEval and MBPP, and the worst pairs."""
    material, tasks = read(str(data / SEEDS), ()), audited("humaneval,mbpp", data)
    result = verdict.audit(
        material.rows, tasks, SETTINGS, behaviour=None, generic_nodes=verdict.GENERIC_NODES
    )
    print(f"\n{result.n_rows} seeds ({material.fields.told()}): tasks leaked, by detector")
    print(f"{'':24}{'removes':>8}" + "".join(f"{name:>12}{'by chance':>12}" for name in tasks))
    for name in [*result.detectors, "all that remove", "all"]:
        asked = {"all": result.detectors, "all that remove": result.remove_on}.get(name, (name,))
        cells = []
        for benchmark, members in tasks.items():
            ids = [{leak.benchmark_task_id for leak in side
                    if leak.benchmark == benchmark and leak.detector in asked}
                   for side in (result.leaks, result.collisions)]  # fmt: skip
            cells += [f"{len(ids[0])}/{len(members)}", f"{len(ids[1] - ids[0])}"]
        mark = "yes" if name in result.remove_on else ""
        print(f"{name:24}{mark:>8}" + "".join(f"{cell:>12}" for cell in cells))
    print(f"published: {PUBLISHED}\n\n{result.rule}")
    gone = len(result.dropped)
    print(f"{gone} rows go, {result.n_rows - gone} stay\n\nthe pairs most detectors agree on:")
    worst = views.worst_pairs(result, 200)
    shown = worst[:8] + [p for p in worst if p[0].benchmark == "humaneval"][:8]
    for title, left, right in views.compare(shown, material.rows, tasks, longest=900):
        print(f"{title}")
        if texts:
            print(textwrap.indent(left.strip(), "  row  | "))
            print(textwrap.indent(right.strip(), "  task | ") + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("RRTF_DATA"))
    parser.add_argument("--only", choices=("speed", "chance", "seeds", "measure"))
    parser.add_argument("--rows", type=int, default=68_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--texts", action="store_true", help="print the worst pairs themselves")
    given = parser.parse_args()
    if not given.data or not (Path(given.data) / SEEDS).exists():
        sys.exit(f"--data or $RRTF_DATA must name a folder with {SEEDS}")
    data = Path(given.data)
    if given.only == "measure":
        print(json.dumps(measured(data, given.rows, given.seed)))
        return
    if given.only in (None, "speed"):
        speed(data, given.rows, given.seed)
    if given.only in (None, "chance"):
        chance(data)
    if given.only in (None, "seeds"):
        seeds(data, texts=given.texts)


if __name__ == "__main__":
    main()
