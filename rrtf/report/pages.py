"""From executed notebooks to pages that open offline, their index and the summary.

The HTML is self-contained: no address outside the page, images inline, formulas as MathML. What
differs between machines (paths, times in metadata, progress bars on stderr) is taken out.
"""

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from rrtf import config, store

ANSWER = "answer"  # the id of the cell that a page begins with
HEADLINE = "06_evaluate"  # whose answer the index begins with
ORIGIN = ("commit", "date")  # of a receipt, shown in the foot
# pages beside those of the notebooks: file, title
EXTRAS = (("samples.html", "every answer"), ("glossary.html", "glossary"))

_MATH = re.compile(
    r"(?P<code>```.*?```|`[^`\n]+`)"
    r"|\$\$(?P<block>.+?)\$\$"
    r"|(?<![\\\w$])\$(?!\s)(?P<inline>(?:(?!\n\s*\n)[^$])+?)(?<!\s)\$(?![\d$])",
    re.DOTALL,
)


def clean(executed: Mapping[str, Any]) -> dict:
    """The executed notebook without what belongs to one machine or one moment."""
    notebook = deepcopy(dict(executed))
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        for name in ("papermill", "execution"):
            cell["metadata"].pop(name, None)
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["id"] = "injected-parameters"
        if cell["cell_type"] == "code":
            kept = [output for output in cell["outputs"] if output.get("name") != "stderr"]
            cell["outputs"] = [_without_paths(output) for output in kept]
    return notebook


def _without_paths(output: dict) -> dict:
    """An output whose texts name files relative to the checkout."""
    text = json.dumps(output)
    for folder in {config.output_home(), config.home()}:
        text = text.replace(f"{json.dumps(str(folder))[1:-1]}/", "")
    return json.loads(text)


def with_prose(executed: Mapping[str, Any], source: Sequence[Mapping[str, Any]]) -> dict:
    """The executed notebook with the cells' present texts: for changes that change no result."""
    ran = {cell["id"]: cell for cell in executed["cells"]}
    cells = []
    for cell in source:
        cells.append(ran.get(cell["id"], {}) | {name: cell[name] for name in ("id", "source")})
        if cell["cell_type"] == "markdown":
            cells[-1] |= cell
        if cell["id"] == "parameters" and "injected-parameters" in ran:
            cells.append(ran["injected-parameters"])
    return {**executed, "cells": cells}


def title(cells: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """(heading, question) of a notebook: its first `#` line and what follows up to the first `?`.

    Without a question mark the whole paragraph stands in for the question.
    """
    text = "".join(cells[0]["source"]) if cells else ""
    heading, _, rest = text.strip().partition("\n")
    paragraph = " ".join(rest.strip().partition("\n\n")[0].split())
    question, mark, _ = re.sub(r"[*`]|^> ?", "", paragraph).partition("?")
    return heading.lstrip("# ").strip(), question + mark


def mathml(latex: str, *, block: bool) -> str:
    """A LaTeX formula as MathML; ValueError with the formula where it cannot be converted."""
    from latex2mathml.converter import convert

    try:
        return convert(latex.strip(), display="block" if block else "inline")
    except Exception as error:  # the converter raises many kinds
        raise ValueError(f"formula {latex.strip()!r} does not convert: {error!r}") from error


def take_formulas(text: str, formulas: dict[str, str]) -> str:
    """Markdown with a token in place of each formula; `formulas` receives token -> MathML.

    Tokens survive the Markdown converter, which would read `_` and `*` inside MathML as emphasis.
    """

    def replace(match: re.Match) -> str:
        if match["code"]:
            return match["code"]
        latex = match["block"] or match["inline"]
        token = f"formula{len(formulas):04d}token"
        formulas[token] = mathml(latex, block=bool(match["block"]))
        return f"\n\n{token}\n\n" if match["block"] and "\n" in match[0] else token

    return _MATH.sub(replace, text)


def page(notebook: Mapping[str, Any], name: str, profile: str, foot: str = "") -> str:
    """The notebook as one HTML page over nbconvert's `lab` template, its answer first.

    `foot` says what the page comes from. The notebook itself keeps the order of its story.
    """
    import nbformat
    from nbconvert import HTMLExporter

    shown = deepcopy(dict(notebook)) | {"cells": _in_reading_order(notebook["cells"])}
    formulas: dict[str, str] = {}
    linked = {"glossary"} if name == "glossary" else set()
    for cell in shown["cells"]:
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            text = text if linked == {"glossary"} else link_terms(text, linked)
            cell["source"] = take_formulas(text, formulas)
        else:
            cell["metadata"]["value"] = _bare(cell)
    heading = title(shown["cells"])[0] or name
    shown["metadata"] = dict(shown["metadata"]) | {"title": f"{heading} · rrtf, {profile} run"}
    around = {
        "before": _beside(name, profile, -1),
        "after": _beside(name, profile, 1),
        "extras": extras(profile),
        "contents": contents(shown["cells"]),
        "opening": next((c["id"] for c in shown["cells"] if c["id"] == ANSWER), ""),
        "profile": profile,
        "stage": name,
        "foot": foot,
        "css": _template("report.css"),
        "script": _template("report.js"),
    }
    folder = str(files("rrtf.report").joinpath("templates"))
    exporter = HTMLExporter(template_name="report", extra_template_basedirs=[folder])
    node = nbformat.reads(json.dumps(shown), as_version=4)
    body, _ = exporter.from_notebook_node(node, resources={"rrtf": around})
    for token, formula in formulas.items():
        body = body.replace(token, formula)
    body = body.replace('href="../', 'href="../../')  # a page lies one folder deeper than notebooks
    return re.sub(r'href="((?:\d\d|appendix)_\w+)\.ipynb', r'href="\1.html', body)


def _in_reading_order(cells: Sequence[Mapping[str, Any]]) -> list[dict]:
    """Heading, answer, what the notebook says of itself, and the rest; parameters only once."""
    found = [dict(deepcopy(cell)) for cell in cells]
    if any(cell.get("id") == "injected-parameters" for cell in found):
        found = [cell for cell in found if cell["id"] != "parameters"]
    answers = [cell for cell in found if cell.get("id") == ANSWER]
    if not answers or found[0]["cell_type"] != "markdown":
        return found
    heading, _, rest = "".join(found[0]["source"]).partition("\n")
    about = found[0] | {"id": "about", "source": rest.strip()}
    others = [cell for cell in found[1:] if cell.get("id") != ANSWER]
    return [found[0] | {"source": heading}, *answers, about, *others]


def _bare(cell: dict) -> str:
    """Takes the value that a cell ends with out of its outputs where it is shown only as text.

    Such values (sizes, paths) serve who works on the notebook; the page shows them with the code.
    """
    plain = [out for out in cell["outputs"] if out["output_type"] == "execute_result"
             and set(out["data"]) == {"text/plain"}]  # fmt: skip
    cell["outputs"] = [out for out in cell["outputs"] if out not in plain]
    return "\n".join("".join(out["data"]["text/plain"]) for out in plain)


def answer(notebook: Mapping[str, Any]) -> tuple[str, str]:
    """(sentence, figure as base64 PNG) of an executed notebook's answer; `''` for what it lacks."""
    cells = [cell for cell in notebook["cells"] if cell.get("id") == ANSWER]
    shown = [out.get("data", {}) for cell in cells for out in cell.get("outputs", [])]
    texts = ["".join(data.get("text/html", "")) for data in shown]
    words = " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", "", text) for text in texts)
    figures = ["".join(data["image/png"]) for data in shown if "image/png" in data]
    return html.unescape(words).strip(), "".join(figures[:1])


def contents(cells: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(anchor, heading) of every section, as nbconvert names them; none where there are few."""
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    found = [(line.replace(" ", "-"), line) for line in re.findall(r"^## (.+)$", text, re.M)]
    return found if len(found) > 3 else []


@cache
def terms() -> dict[str, str]:
    """Term -> anchor of every entry of the glossary; an entry names its spellings by commas."""
    heads = re.findall(r"^## (.+)$", _template("glossary.md"), re.M)
    return {term: head.replace(" ", "-") for head in heads for term in head.split(", ")}


def link_terms(text: str, linked: set[str]) -> str:
    """Markdown in which the first use on a page of each of our terms leads to the glossary.

    `linked` are the anchors that the page has linked; those that are new come to it. Code,
    formulas, links and headings stay as they are.
    """
    words = "|".join(sorted(map(re.escape, terms()), key=len, reverse=True))
    whole = re.compile(rf"{_MATH.pattern}|\[[^]]*\]\([^)]*\)|^#[^\n]*|\b(?P<term>{words})\b",
                       re.DOTALL | re.MULTILINE)  # fmt: skip

    def replace(match: re.Match) -> str:
        anchor = terms().get(match["term"] or "", "")
        if not anchor or anchor in linked:
            return match[0]
        linked.add(anchor)
        return f"[{match[0]}](glossary.html#{anchor})"

    return whole.sub(replace, text)


def extras(profile: str) -> list[tuple[str, str]]:
    """(file, title) of the pages beside the notebooks' that there are: glossary and the like."""
    return [one for one in EXTRAS if (config.report_dir(profile) / one[0]).exists()]


def look() -> str:
    """A hash of all that decides how pages look, apart from what they show."""
    folder = Path(__file__).parent
    return store.sha256(folder / "templates")[:16] + store.sha256(Path(__file__))[:16]


def _template(name: str) -> str:
    return files("rrtf.report").joinpath("templates", "report", name).read_text(encoding="utf-8")


def _beside(name: str, profile: str, step: int) -> str:
    """The page before or after, of all that a plain run makes and of the appendices at hand."""
    folder = config.report_dir(profile)
    usual = (*config.STAGES, *config.CLOSING)
    chain = [stage for stage in (*config.STAGES, *config.APPENDICES)
             if stage in usual or stage == name or (folder / f"{stage}.html").exists()]  # fmt: skip
    at = chain.index(name) + step if name in chain else -1
    return chain[at] if 0 <= at < len(chain) else ""


def foot(profile: str, stage: str, receipt: Mapping[str, Any]) -> str:
    """Where a page comes from: run, commit, date, machine and versions, as far as is known."""
    done = store.manifest(profile, stage) or {}
    known = [f"{profile} run", *(f"{name} {receipt[name]}" for name in ORIGIN if name in receipt)]
    versions = [f"{name} {version}" for name, version in done.get("versions", {}).items()]
    return " · ".join(filter(None, [*known, done.get("device"), ", ".join(versions)]))


def write_page(notebook: Mapping[str, Any], name: str, profile: str, foot: str) -> Path:
    """Writes the executed notebook and its HTML page into the profile's report folder.

    The figure that the page begins with is a file beside them: for a README, which shows no HTML.
    """
    folder = config.report_dir(profile)
    store.write_json(folder / f"{name}.ipynb", notebook)
    if figure := answer(notebook)[1]:
        store.write_bytes(folder / f"{name}.png", base64.b64decode(figure))
    path = folder / f"{name}.html"
    store.write_bytes(path, page(notebook, name, profile, foot).encode())
    return path


def write_glossary(profile: str) -> Path:
    """`glossary.html`, which the pages link where they first use a term."""
    cell = {"cell_type": "markdown", "id": "title", "metadata": {}}
    cells = [cell | {"source": _template("glossary.md")}]
    whole = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path = config.report_dir(profile) / "glossary.html"
    store.write_bytes(path, page(whole, "glossary", profile).encode())
    return path


def shown(value: Any) -> str:
    """A figure as the index shows it: three significant digits, intervals in brackets."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return f"[{', '.join(shown(item) for item in value)}]"
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(item)}" for name, item in value.items())
    return str(value)


def write_index(
    profile: str,
    titles: Mapping[str, tuple[str, str]],
    seconds: Mapping[str, float],
    *,
    foot: str = "",
    failed: str = "",
) -> Path:
    """`index.html`: the headline with its figure, then a line per stage with its answer.

    `titles` (heading, question) names the stages to list, in order; `seconds` is by stage;
    `failed` is the stage that just failed, if any. The answers are those of the pages.
    """
    folder = config.report_dir(profile)
    found = {stage: _answered(profile, stage) for stage in titles}
    rows = [
        _row(profile, stage, names, found[stage][0], _standing(profile, stage, seconds, failed))
        for stage, names in titles.items()
    ]
    sentence, figure = found.get(HEADLINE, ("", ""))
    image = f'<img src="data:image/png;base64,{figure}" alt="{html.escape(sentence)}">'
    total = sum(seconds.get(stage, 0.0) for stage in config.STAGES + config.CLOSING) / 60
    values = {
        "css": _template("report.css"),
        "profile": html.escape(profile),
        "minutes": f"{total:.1f}",
        "headline": f'<p class="rrtf-answer">{html.escape(sentence)}</p>' * bool(sentence),
        "figure": image * bool(figure),
        "extras": " ".join(f'<a href="{file}">{name}</a>' for file, name in extras(profile)),
        "foot": html.escape(foot),
        "rows": "\n".join(rows),
    }
    text = re.sub(r"\{\{(\w+)\}\}", lambda name: values[name[1]], _template("index.html"))
    store.write_bytes(folder / "index.html", text.encode())
    return folder / "index.html"


def _answered(profile: str, stage: str) -> tuple[str, str]:
    path = config.report_dir(profile) / f"{stage}.ipynb"
    there = store.manifest(profile, stage) and path.exists()
    return answer(store.read_json(path)) if there else ("", "")


def _standing(profile: str, stage: str, seconds: Mapping[str, float], failed: str) -> str:
    """`failed`, `not run`, or the minutes that a finished stage took."""
    there = (config.report_dir(profile) / f"{stage}.html").exists()
    if stage == failed:
        return "failed"
    if not there or not store.manifest(profile, stage):
        return "not run"
    return f"{seconds[stage] / 60:.1f}" if stage in seconds else ""


def _row(profile: str, stage: str, names: tuple[str, str], answered: str, standing: str) -> str:
    """A stage's line; a stage without an answer shows the key numbers of its manifest."""
    done = store.manifest(profile, stage)
    there = (config.report_dir(profile) / f"{stage}.html").exists() and done
    heading, question = (html.escape(text) for text in names)
    link = f'<a href="{stage}.html">{heading}</a>' if there else heading
    executed = f' <a class="quiet" href="{stage}.ipynb">ipynb</a>' if there else ""
    numbers = " ".join(
        f"<span><b>{html.escape(shown(value))}</b> {html.escape(name.replace('_', ' '))}</span>"
        for name, value in (done["figures"].items() if there else ())
    )
    kind = standing.replace(" ", "-") if standing in ("failed", "not run") else "n"
    return (
        f'<tr><td class="stage">{link}{executed}</td>'
        f'<td class="question"><span class="quiet">{question}</span>'
        f"<br>{html.escape(answered) or numbers}</td>"
        f'<td class="{kind}">{standing}</td></tr>'
    )


def write_summary(profile: str, seconds: Mapping[str, float]) -> Path:
    """`summary.json`, the results for programs: what the stages saved, gathered."""
    evaluate, quantize, audit = (
        config.run_dir(profile) / config.stage_name(word)
        for word in ("evaluate", "quantize", "paper_audit")
    )
    summary = {
        "profile": profile,
        "seconds": dict(seconds),
        "results": _rows(evaluate / "results.json"),
        "comparisons": _rows(evaluate / "comparisons.json"),
        "quantization": _rows(quantize / "quantization.json"),
        "quantization_timing": _rows(quantize / "timing.json"),
        "paper_audit": _rows(evaluate / "paper_audit.json"),
        "paper_beside": _rows(audit / "beside.json"),
    }
    path = config.report_dir(profile) / "summary.json"
    store.write_json(path, summary)
    return path


def _rows(path: Path) -> list:
    finished = (path.parent / "manifest.json").exists()
    return store.read_json(path) if finished and path.exists() else []
