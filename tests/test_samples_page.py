"""`samples.html`: what it holds, that data stays data, its size, what it does in a browser."""

import base64
import csv
import gzip
import html
import itertools
import json
import random
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import wait_until
from typer.testing import CliRunner

from rrtf import __main__, config, rank, store
from rrtf.figures import tables
from rrtf.prompts import extract
from rrtf.records import Execution, Leak, Outcome, Problem, Response
from rrtf.report import samples
from rrtf.report.samples import Part, Ranking

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EVIL = "</script></noscript><img src=x onerror=alert(1)>{{data}}\N{GRINNING FACE}"

SEED = Problem("seed", 'def add(a, b):\n    """Sum."""\n', "add", "def check(f):\n    pass\n")
ADD = Problem(
    "add", f'def add(a, b, c):\n    """Sum of three. {EVIL}"""\n', "add",
    "def check(candidate):\n    assert candidate(1, 2, 3) == 6\n", "    return a + b + c\n",
    parent_id="seed", operator="constrain", depth=1,
)  # fmt: skip
BODIES = {
    ("teacher", 0): "    total = a + b\n    return total + c\n",
    ("student", 0): "    total = a - b\n    return total + c\n",
    ("student", 1): "    total = a + b\n    return total + c  # the same\n",
    ("student", 2): "    return (\n",
}
OUTCOMES = [Outcome.PASS, Outcome.FAILED_TESTS, Outcome.PASS, Outcome.COMPILE_ERROR]


def answer(source: str, index: int, text: str, problem: Problem = ADD) -> Response:
    program = extract(problem, text)
    return Response(problem.task_id, source, index, text, program, 12, "stop", 0.6)


def verdict(r: Response, outcome: Outcome) -> Execution:
    passed = outcome == Outcome.PASS
    reason = "passed" if passed else outcome.name.lower()
    return Execution(r.task_id, r.source, r.index, outcome, reason, int(passed), 1, "namespaces")


RESPONSES = [answer(source, index, text) for (source, index), text in BODIES.items()]
EXECUTIONS = list(map(verdict, RESPONSES, OUTCOMES))


def training(**changes) -> Part:
    """The four answers, ranked and paired as the verb does it."""
    scores = dict(zip(Outcome, (0.0, 1.0, 2.0, 3.0), strict=True))
    how = dict(scores=scores, tie_break=0.5, pass_ratio=0.0, prompt_format="starcoder")
    groups, _ = rank.rank(
        [ADD], RESPONSES, EXECUTIONS, teacher="teacher", prompts={"add": ADD.prompt}, **how
    )
    places = [0, groups[0].outcomes.index(Outcome.FAILED_TESTS)]
    ranking = Ranking(groups, [rank.take(groups[0], places)], "starcoder", ["teacher"])
    return replace(Part("training", RESPONSES, EXECUTIONS, ranking), **changes)


LOGS = {("add", "student", 0): [("start", [("return", -0.5), (" <b>", -2.25)])]}


def made(**options) -> bytes:
    after = [Part("evaluation", [answer("rrtf-s0", 0, BODIES["teacher", 0])], [])]
    stories = {"add": [("audit", "kept"), ("rank", "a pair"), ("loss before and after", "1 to 0")]}
    more = {"title": f"Answers {EVIL}", "stories": stories, "index": "index.html"}
    return samples.page([SEED, ADD], [training(logs=LOGS), *after], **more | options)


def unpacked(page: bytes) -> dict:
    """The table in a page."""
    data = re.search(rb'id="data">([^<]*)</script>', page)[1]
    return json.loads(gzip.decompress(base64.b64decode(data)))


def column(table: dict, name: str) -> list:
    """The values of a column; one that is coded says how many words ago, 0 for a new one."""
    if not isinstance(coded := table[name], dict):
        return coded
    new, places = itertools.count(), []
    for back in coded["at"]:
        seen = len(set(places))
        places.append(seen - back if back else next(new))
    return [coded["words"][place] for place in places]


def test_the_page_holds_every_answer_with_verdict_score_rank_and_use():
    table = unpacked(made())
    names = ("model", "index", "outcome", "score", "rank", "used")
    columns = zip(*(column(table, n) for n in names), strict=True)
    rows = {(source, index): rest for source, index, *rest in columns}
    assert rows == {
        ("teacher", 0): ["PASS", 3.5, 1, "imitated and ranked"],
        ("student", 0): ["FAILED_TESTS", 2.0, 2, "ranked below"],
        ("student", 1): ["PASS", 3.5, 1, "repeats another"],
        ("student", 2): ["COMPILE_ERROR", 0.0, 3, "not drawn"],
        ("rrtf-s0", 0): ["not judged", None, None, ""],
    }
    said = column(table, "text")
    cuts = zip(*(column(table, n) for n in ("head", "from", "left", "rest")), strict=True)
    ran = [
        ADD.prompt[:head] + text[start : len(text) - left] + rest
        for text, (head, start, left, rest) in zip(said, cuts, strict=True)
    ]
    assert column(table, "rest") == [""] * 5, "of a program that is written nothing is told twice"
    every = [*sorted(RESPONSES, key=lambda r: (r.source, r.index))]
    assert ran[:4] == [r.program for r in every] and said[:4] == [r.text for r in every]
    assert [one["task_id"] for one in table["tasks"]] == ["seed", "add"], "with its seed"
    part = training()
    part = replace(part, ranking=replace(part.ranking, pairs=[]))
    used = column(unpacked(samples.page([ADD], [part], title="t")), "used")
    assert used == ["no pair", "repeats another", "no pair", "imitated by sft alone"]


def test_the_assertion_that_failed_is_told_where_a_verdict_has_it():
    class Told:
        failed_test, failed_line, called, expected, got = 3, 12, "add(1, 2)", "3", "'<b>'"

    lines = samples._failed(Told).split("\n")
    assert lines == [
        "assertion 3, line 12 of the tests", "call     add(1, 2)", "expected 3", "got      '<b>'",
    ]  # fmt: skip
    assert samples._failed(EXECUTIONS[1]) == samples._failed(None) == ""


@pytest.mark.parametrize(
    "row",
    [
        {"logprobs": {"content": [{"token": "a", "logprob": -1}, {"token": "b", "logprob": 0}]}},
        {"logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1.0, 0.0]}},
        {"logprobs": {"tokens": ["?", "a", "b"], "token_logprobs": [None, -1.0, 0.0]}},
    ],
)
def test_tokens_are_read_in_the_forms_that_servers_give(row):
    assert samples.token_logs(row) == [("a", -1.0), ("b", 0.0)]
    assert not samples.token_logs({}) and not samples.token_logs({"logprobs": "a"})


def test_data_is_never_markup_and_the_script_fetches_nothing():
    page = made().decode()
    assert page == made().decode(), "the same records give the same bytes"
    markup = re.sub(r'id="data">[^<]*<', "", page)
    assert "<img" not in markup and "alert(1)" in html.unescape(markup)
    assert page.count("</script>") == 2 and page.count("</noscript>") == 1
    assert "://" not in re.sub(r"<!DOCTYPE[^>]*>", "", markup), "no address outside the page"
    script = samples._template("samples.js")
    assert len(script.splitlines()) <= 300
    asking = r"innerHTML|outerHTML|insertAdjacent|document\.write|\b(eval|fetch|import)\("
    assert not re.search(asking, script), "no text is taken for markup"


def test_without_a_script_there_are_totals_and_the_first_answers():
    table = re.search(r"<noscript>(.*)</noscript>", made().decode(), re.DOTALL)[1]
    cells = [html.unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", table)]
    assert cells[:7] == ["training", "student", "3", "1", "1", "0", "1"]
    assert html.unescape(table).count("return total + c") == 4  # of five: one does not compile
    many = [answer("student", n, f"    return {n}\n") for n in range(300)]
    page = samples.page([ADD], [Part("given", many, [])], title="t").decode()
    assert page.count("<summary>code") == samples.STATIC


def ten_thousand() -> tuple[list[Problem], Part]:
    """Answers of real code, hardly one like another: pieces of Python's own library."""
    rng, pieces = random.Random(0), []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        pieces += ["".join(lines[at : at + 12]) for at in range(0, len(lines) - 12, 12)]
    rng.shuffle(pieces)
    problems = [replace(ADD, task_id=f"t/{n}") for n in range(200)]
    texts = itertools.islice(itertools.cycle(pieces), 10_000)
    responses = [
        Response(f"t/{n % 200}", f"m{n // 200 % 4}", n // 800, text, ADD.prompt + text)
        for n, text in enumerate(texts)
    ]
    runs = [verdict(r, rng.choice(list(Outcome))) for r in responses]
    return problems, Part("evaluation", responses, runs)


def test_ten_thousand_answers_are_at_most_three_megabytes():
    problems, part = ten_thousand()
    assert len(part.responses) == 10_000
    assert len(samples.page(problems, [part], title="t")) <= 3_000_000


def test_a_run_leaves_its_page_with_the_way_of_every_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("RRTF_HOME", str(tmp_path))
    assert samples.write_run("smoke") is None, "no answers, no page"
    part = training()
    (group,), (pair,) = part.ranking.groups, part.ranking.pairs
    leak = Leak("add", "test", "test/0", "5-gram", 0.5, "a b c")
    strength = {"task_id": "add", "outcomes": ["PASS", "FAILED_TESTS"]}
    pieces = [["x"] * len(pair.responses), [[-1.0], [-3.0]]]
    near = {"task_id": "add", "tokens": pieces[0], "log_probs": pieces[1], "L_ft": 2.5}
    near = [near | {"model": name, "L_rank": x} for name, x in (("before", 0.5), ("after", 0.0))]
    tested = replace(ADD, task_id="test/0")
    told = [answer("rrtf-s0", 0, BODIES["teacher", 0], tested)]
    files = {
        "evolve": {"seeds": [SEED], "train": [ADD], "test": [tested]},
        "audit": {"train": [ADD], "leaks": [leak]},
        "sample": {"responses": part.responses},
        "rank": {"executions": part.executions, "groups": [group], "pairs": [pair],
                 "strengths": [strength]},
        "train": {"likelihoods": near},
        "evaluate": {"responses": told, "executions": [verdict(told[0], Outcome.PASS)]},
    }  # fmt: skip
    for word, rows_of in files.items():
        folder = config.run_dir("smoke") / config.stage_name(word)
        for name, rows in rows_of.items():
            store.write(folder / f"{name}.jsonl", rows)
        manifest = {"settings": {"prompt_format": "starcoder"}, "inputs": {}, "outputs": {}}
        store.write_json(folder / "manifest.json", manifest)
    page = samples.write_run("smoke")
    table = unpacked(page.read_bytes())
    assert column(table, "stage") == ["training"] * 4 + ["evaluation"]
    (story,) = (one["story"] for one in table["tasks"] if one["task_id"] == "add")
    assert story == [
        ["audit", "kept; resembles 5-gram: test test/0"],
        ["tests", "the tests see 1 of 2 faults put into the reference"],
        ["rank", "3 different programs; a pair: teacher (PASS, 3.5) is imitated, and ranked "
         "against student (FAILED_TESTS, 2)"],
        ["loss before and after",
         "before: L_rank 0.500, L_ft 2.50; after: L_rank 0.000, L_ft 2.50"],
    ]  # fmt: skip
    logs = dict(zip(zip(column(table, "model"), column(table, "index"), strict=True),
                    table["logs"], strict=True))  # fmt: skip
    assert logs["teacher", 0] == [["before", ["x"], [-1.0]], ["after", ["x"], [-1.0]]]
    assert logs["student", 0][0] == ["before", ["x"], [-3.0]] and logs["student", 1] == []
    page.write_bytes(page.read_bytes() + b" ")
    samples.write_run("smoke")
    assert page.read_bytes().endswith(b" "), "nothing changed, nothing is written"
    late = manifest | {"inputs": {"03_sample/responses.jsonl": "of before"}}
    store.write_json(config.run_dir("smoke") / "04_rank" / "manifest.json", late)
    table = unpacked(samples.write_run("smoke").read_bytes())
    assert set(column(table, "outcome")) == {"not judged", "PASS"}, "what it read is gone"


def test_every_verb_that_judges_writes_the_page(tmp_path):
    tasks, lines, out = (str(tmp_path / name) for name in ("p.jsonl", "r.jsonl", "page.html"))
    toy = replace(ADD, prompt='def add(a, b, c):\n    """Sum of three."""\n')
    store.write(Path(tasks), [toy])
    logs = {"logprobs": {"tokens": ["a"], "token_logprobs": [-1.5]}}
    rows = [
        {"task_id": "add", "source": source, "completion": text} | logs
        for (source, _), text in BODIES.items()
    ]
    store.write(Path(lines), rows)
    calls = {
        "grade": [tasks, lines], "rank": [tasks, lines, "--teacher", "teacher"],
        "evaluate": [tasks, f"mine={lines}"],
    }  # fmt: skip
    for name, words in calls.items():
        ran = CliRunner().invoke(__main__.app, [name, *words, "--workers", "1", "--report", out])
        assert ran.exit_code == 0, ran.output
        assert f"every answer in {out}" in ran.output.replace("\n", "")
        table = unpacked(Path(out).read_bytes())
        assert sorted(column(table, "outcome")) == sorted(one.name for one in OUTCOMES), name
        if name != "evaluate":
            assert table["mean"] == [-1.5] * 4
        used = {"rank": {"imitated and ranked", "ranked below", "not drawn", "repeats another"}}
        assert set(column(table, "used")) == used.get(name, {""})
    wrong = CliRunner().invoke(__main__.app, ["grade", tasks, lines, "--report", "page.txt"])
    assert wrong.exit_code == 2 and "--report page.txt: expected a name" in wrong.output


class Browser:
    """A headless Chromium, driven by its own protocol: one page, without a network."""

    def __init__(self, folder: Path):
        import websocket

        switches = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        switches += ["--remote-debugging-port=0", "--remote-allow-origins=*", "--mute-audio"]
        self.process = subprocess.Popen(
            [CHROMIUM, *switches, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        told = folder / "DevToolsActivePort"
        assert wait_until(lambda: told.exists() and "\n" in told.read_text())
        port, path = told.read_text().split("\n")[:2]
        self.socket = websocket.create_connection(f"ws://127.0.0.1:{port}{path}", timeout=120)
        self.count, self.session, self.events = 0, None, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        off = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.ask("Network.emulateNetworkConditions", offline=True, **off)

    def ask(self, method: str, **parameters) -> dict:
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        session = {"sessionId": self.session} if self.session else {}
        self.socket.send(json.dumps(message | session))
        while True:
            told = json.loads(self.socket.recv())
            if told.get("id") == self.count:
                assert "error" not in told, told
                return told["result"]
            self.events.append(told)

    def open(self, path: Path, fragment: str = "", width: int = 1400) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.ask("Page.navigate", url="about:blank")
        self.events.clear()
        self.ask("Page.navigate", url=f"file://{path}{fragment}")
        assert wait_until(lambda: self.run("document.documentElement?.dataset.ready"))

    def run(self, script: str):
        told = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def press(self, key: str) -> None:
        code = {"ArrowDown": 40, "ArrowUp": 38, "Enter": 13, "Escape": 27}.get(key, ord(key[0]))
        how = {"key": key, "windowsVirtualKeyCode": code}
        more = {"text": key} if len(key) == 1 else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **how, **more)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **how)

    def complaints(self) -> list:
        """Exceptions, lines of the console, and requests for anything but the page."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        asked = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        strange = [e for e in asked if not e["params"]["request"]["url"].startswith("file://")]
        return [e for e in self.events if e["method"] in kinds] + strange

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no Chromium here")
    pytest.importorskip("websocket")
    one = Browser(tmp_path_factory.mktemp("chromium"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "samples.html"
    path.write_bytes(made())
    return path


ROWS = "[...document.querySelectorAll('.row')].map(row => row.textContent)"
KEY = quote("training:student:0:add")
OPEN = "document.querySelector('#sample h2')?.textContent ?? ''"
SAID = "document.querySelector('#sample').innerText"


def test_the_address_filters_sorts_and_finds(browser, small):
    for fragment, width in itertools.product(("", f"#sample={KEY}"), (1400, 390)):
        browser.open(small, fragment, width)
        wide = browser.run("document.documentElement.scrollWidth")
        assert wide <= width, "nothing overflows"
    browser.open(small)
    assert len(browser.run(ROWS)) == 5 and not browser.complaints()
    browser.open(small, "#outcome=PASS")
    assert len(browser.run(ROWS)) == 2
    assert browser.run("document.querySelector('#filters select[name=outcome]').value") == "PASS"
    browser.open(small, "#model=student&stage=training&sort=-outcome")
    verdicts = "[...document.querySelectorAll('.row .outcome')].map(cell => cell.textContent)"
    assert browser.run(verdicts) == ["PASS", "FAILED_TESTS", "COMPILE_ERROR"]
    browser.open(small, "#find=A+-+B")
    assert len(browser.run(ROWS)) == 1, "in the code, in any case"
    browser.run("document.querySelector('select[name=model]').value = 'teacher'")
    browser.run("document.querySelector('select[name=model]').dispatchEvent(new Event('change'))")
    assert browser.run("location.hash") == "#find=A+-+B&model=teacher"
    assert browser.run(ROWS) == [] and not browser.complaints()


def test_a_link_opens_one_answer_with_its_diff_its_tokens_and_its_way(browser, small):
    browser.open(small, f"#sample={KEY}")
    assert browser.run(OPEN) == "add"
    said = browser.run(SAID)
    told = "log P by token, start: -1.375 per token"
    assert all(w in said for w in ("FAILED_TESTS", "ranked below", told, "evolved: constrain"))
    steps = browser.run("[...document.querySelectorAll('.way > li')].map(li => li.textContent)")
    assert [re.split("[ ,:]", step)[0] for step in steps] == [
        "seed", "evolved", "audit", "answers", "rank", "loss", "answers",
    ]  # fmt: skip
    cut, add = (browser.run(f"document.querySelector('.diff pre.{n}').textContent")
                for n in ("cut", "add"))  # fmt: skip
    assert (cut, add) == ("    total = a + b", "    total = a - b"), "the teacher on the left"
    code = browser.run("document.querySelector('pre.code').textContent")
    assert code == RESPONSES[1].program, "coloured, and every character is there"
    words = "[...document.querySelector('pre.code').querySelectorAll('.k')].map(k => k.textContent)"
    assert browser.run(words) == ["def", "return"]
    assert not browser.run("document.querySelectorAll('#sample img, #sample script').length")
    assert not browser.complaints()


def test_a_cell_of_the_map_of_tasks_and_sources_opens_its_answer(browser, small):
    browser.open(small, "#stage=training")
    browser.run("document.querySelector('#chart summary').click()")
    sources = "[...document.querySelectorAll('#sources a')].map(link => link.textContent)"
    told = "document.querySelector('#cell').textContent"
    assert wait_until(lambda: browser.run(sources) == ["teacher 100.0 %", "student 33.3 %"])
    browser.run("document.querySelector('#map').focus()")
    assert browser.run(told) == "add · teacher: 1 of 1 pass"
    browser.press("ArrowDown")
    assert browser.run(told) == "add · student: 1 of 3 pass"
    browser.press("Enter")
    assert browser.run("location.hash").endswith(KEY) and browser.run(OPEN) == "add"
    place = browser.run("JSON.stringify(document.querySelector('#map').getBoundingClientRect())")
    at = json.loads(place)
    where = {"x": at["x"] + at["width"] / 2, "y": at["y"] + at["height"] / 4, "button": "left"}
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        browser.ask("Input.dispatchMouseEvent", type=kind, clickCount=1, **where)
    assert "teacher" in browser.run("location.hash") and not browser.complaints()


def test_sliders_move_the_loss_of_a_group_by_hand(browser, tmp_path):
    rows = [("teacher", "PASS", 3.5, -1.75), ("student", "FAILED_TESTS", 2.0, -0.5)]
    names = ("source", "outcome", "r", "p")
    page = tables.sliders([dict(zip(names, row, strict=True)) | {"|y|": 10} for row in rows]).data
    ready = "<script>document.documentElement.dataset.ready = 1</script>"
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html>{page}{ready}", encoding="utf-8")
    browser.open(tmp_path / "page.html")
    loss = "document.querySelector('.rrtf-sliders p').textContent"
    assert browser.run(loss) == "L = L_rank + L_ft = 1.88 + 17.5 = 19.4"
    move = "{ const one = document.querySelectorAll('input')[%d]; one.value = %s; one.oninput(); }"
    browser.run(move % (3, -2))
    assert browser.run(loss) == "L = L_rank + L_ft = 0.00 + 17.5 = 17.5", "in order: silent"
    browser.run(move % (1, -1))
    assert (
        browser.run(loss) == "L = L_rank + L_ft = 0.00 + 10.0 = 10.0" and not browser.complaints()
    )


def test_a_table_of_a_page_can_be_taken_along_as_csv(browser, tmp_path):
    table = tables.table([{"name": 'a "b", c', "n": 3}, {"name": "x\ny", "n": 4}], caption="Two!")
    script = f"<script>{samples._template('report.js')}</script>"
    ready = "<script>document.documentElement.dataset.ready = 1</script>"
    page = f'<!DOCTYPE html><button id="code"></button>{table.data}{script}{ready}'
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    browser.open(tmp_path / "page.html")
    text = browser.run("csv(document.querySelector('table'))")
    assert [*csv.reader(text.splitlines(keepends=True))] == [
        ["name", "n"], ['a "b", c', "3"], ["x\ny", "4"],
    ]  # fmt: skip
    link = "document.querySelector('a.csv')"
    assert browser.run(f"{link}.download") == "Two-.csv"
    browser.run(f"{link}.addEventListener('click', event => event.preventDefault())")
    browser.run(f"{link}.click()")
    assert browser.run(f"{link}.href").startswith("blob:") and not browser.complaints()


def test_the_page_is_read_by_keyboard(browser, small):
    browser.open(small)
    browser.press("ArrowDown")
    first = browser.run("location.hash")
    browser.press("ArrowDown")
    assert browser.run("location.hash") != first and browser.run(OPEN) == "add"
    browser.press("ArrowUp")
    assert browser.run("location.hash") == first
    browser.press("Enter")
    assert browser.run("document.activeElement.id") == "sample"
    browser.press("Escape")
    assert not browser.run(OPEN) and browser.run("document.activeElement.id") == "rows"
    browser.press("/")
    for letter in "a-b":
        browser.press(letter)
    assert browser.run("document.activeElement.value") == "a-b"
    browser.press("Escape")
    browser.press("ArrowDown")
    assert not browser.run(OPEN), "nothing is found, nothing opens"
    assert not browser.complaints()


def test_a_browser_that_cannot_unpack_shows_the_tables_without_a_script(browser, small):
    off = {"source": "delete window.DecompressionStream"}
    mark = browser.ask("Page.addScriptToEvaluateOnNewDocument", **off)
    browser.open(small)
    browser.ask("Page.removeScriptToEvaluateOnNewDocument", **mark)
    assert browser.run("document.querySelectorAll('td').length") > 40
    assert "cannot unpack" in browser.run("document.body.innerText")
    assert not browser.run("document.querySelectorAll('img').length") and not browser.complaints()


def test_ten_thousand_answers_show_only_what_is_in_sight(browser, tmp_path):
    problems, part = ten_thousand()
    path = tmp_path / "samples.html"
    path.write_bytes(samples.page(problems, [part], title="t"))
    browser.open(path)
    assert 20 < len(browser.run(ROWS)) < 80
    assert browser.run("document.querySelector('#count').textContent") == "10,000 of 10,000"
    browser.run("document.querySelector('#rows').scrollTop = 1e9")
    last = "document.querySelector('.row:last-child').getAttribute('aria-posinset')"
    assert wait_until(lambda: browser.run(last) == "10000")
