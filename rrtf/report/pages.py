"""From executed notebooks to pages that open offline, their index and the summary.

The HTML is self-contained: no address outside the page, images inline, formulas as MathML. What
differs between machines (paths, times in metadata, progress bars on stderr) is taken out.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any

from rrtf import config, store

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


def page(notebook: Mapping[str, Any], name: str, profile: str) -> str:
    """The notebook as one HTML page over nbconvert's `lab` template."""
    import nbformat
    from nbconvert import HTMLExporter

    shown = deepcopy(dict(notebook))
    ids = [cell.get("id") for cell in shown["cells"]]
    if "injected-parameters" in ids:
        shown["cells"] = [cell for cell in shown["cells"] if cell["id"] != "parameters"]
    formulas: dict[str, str] = {}
    for cell in shown["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = take_formulas("".join(cell["source"]), formulas)
    around = _neighbours(name) | {
        "profile": profile,
        "stage": name,
        "heading": title(shown["cells"])[0] or name,
        "css": _template("report.css"),
    }
    folder = str(files("rrtf.report").joinpath("templates"))
    exporter = HTMLExporter(template_name="report", extra_template_basedirs=[folder])
    node = nbformat.reads(json.dumps(shown), as_version=4)
    body, _ = exporter.from_notebook_node(node, resources={"rrtf": around})
    for token, formula in formulas.items():
        body = body.replace(token, formula)
    return re.sub(r'href="((?:\d\d|appendix)_\w+)\.ipynb', r'href="\1.html', body)


def look() -> str:
    """A hash of all that decides how pages look, apart from what they show."""
    folder = Path(__file__).parent
    return store.sha256(folder / "templates")[:16] + store.sha256(Path(__file__))[:16]


def _template(name: str) -> str:
    return files("rrtf.report").joinpath("templates", "report", name).read_text(encoding="utf-8")


def _neighbours(name: str) -> dict[str, str]:
    if name not in config.STAGES:
        return {"before": "", "after": ""}
    at = config.STAGES.index(name)
    before = config.STAGES[at - 1] if at else ""
    return {"before": before, "after": config.STAGES[at + 1] if name != config.STAGES[-1] else ""}


def write_page(notebook: Mapping[str, Any], name: str, profile: str) -> Path:
    """Writes the executed notebook and its HTML page into the profile's report folder."""
    folder = config.report_dir(profile)
    store.write_json(folder / f"{name}.ipynb", notebook)
    path = folder / f"{name}.html"
    store.write_bytes(path, page(notebook, name, profile).encode())
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
    failed: str = "",
) -> Path:
    """`index.html`: a line per stage with its question, status, minutes and key numbers.

    `titles` (heading, question) names the stages to list, in order; `seconds` is by stage;
    `failed` is the stage that just failed, if any.
    """
    folder = config.report_dir(profile)
    rows = [
        _row(profile, stage, names, seconds.get(stage), stage == failed)
        for stage, names in titles.items()
    ]
    text = _template("index.html").replace("{{css}}", _template("report.css"))
    total = sum(seconds.get(stage, 0.0) for stage in config.STAGES + config.CLOSING) / 60
    for name, value in {"profile": profile, "minutes": f"{total:.1f}"}.items():
        text = text.replace(f"{{{{{name}}}}}", html.escape(value))
    there = (folder / "samples.html").exists()
    answers = 'Every answer: <a href="samples.html">samples.html</a>.' * there
    text = text.replace("{{answers}}", answers)
    path = folder / "index.html"
    store.write_bytes(path, text.replace("{{rows}}", "\n".join(rows)).encode())
    return path


def _row(
    profile: str, stage: str, names: tuple[str, str], seconds: float | None, failed: bool
) -> str:
    done = store.manifest(profile, stage)
    there = done is not None and (config.report_dir(profile) / f"{stage}.html").exists()
    status = "failed" if failed else "done" if there else "not run"
    heading, question = (html.escape(text) for text in names)
    link = f'<a href="{stage}.html">{stage}</a>' if there else stage
    executed = f' <a class="quiet" href="{stage}.ipynb">ipynb</a>' if there else ""
    minutes = f"{seconds / 60:.1f}" if seconds is not None else ""
    numbers = "".join(
        f"<span><b>{html.escape(shown(value))}</b> {html.escape(name.replace('_', ' '))}</span>"
        for name, value in (done["figures"].items() if there else ())
    )
    return (
        f'<tr><td class="stage">{link}{executed}</td>'
        f'<td class="question"><strong>{heading}</strong><br>{question}</td>'
        f'<td class="{status.replace(" ", "-")}">{status}</td><td class="n">{minutes}</td>'
        f'<td class="figures">{numbers}</td></tr>'
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
