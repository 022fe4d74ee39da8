"use strict";
// The page of samples: unpacks the table, filters, sorts and shows it. Nothing is fetched, and what came from a data file is
// only ever text (textContent, append), never markup. What the page shows is what its address says behind the #: the filters,
// the order and the chosen answer. Every action changes the address, and `read` alone acts on it.
const FILTERS = [["stage", "stage"], ["model", "source"], ["outcome", "verdict"], ["used", "training"]];
// name, head, width, whether a number; shown where any answer has it
const COLUMNS = [
  ["outcome", "verdict", "8.5rem"], ["task", "task", "minmax(7rem, 2fr)"], ["model", "source", "minmax(5rem, 1fr)"],
  ["index", "#", "2.2rem", 1], ["tests", "tests", "4rem", 1], ["score", "score", "3rem", 1], ["rank", "rank", "2.6rem", 1],
  ["mean", "log P", "3.6rem", 1], ["tokens", "tokens", "3.6rem", 1], ["reason", "reason", "minmax(5rem, 1fr)"],
  ["used", "training", "minmax(7rem, 1fr)"], ["stage", "stage", "5.5rem"]];
const FACTS = [["source", "model"], ["#", "index"], ["stage", "stage"], ["reason", "reason"], ["tests", "tests"], ["score", "score"], ["rank", "rank"],
  ["training", "used"], ["log P per token", "mean"], ["temperature", "temperature"], ["tokens", "tokens"], ["end", "finish"], ["isolation", "isolation"]];
const WORST_FIRST = ["COMPILE_ERROR", "RUNTIME_ERROR", "FAILED_TESTS", "PASS"];
const TOKEN = /(#[^\n]*)|((?:\b[rbfuRBFU]{1,2})?(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))|\b(\d[\w.]*)|([^\W\d]\w*)/g;
const BESIDE = ["outcome", "task", "model", "index", "tests", "score"]; // an open answer
const COLLATOR = new Intl.Collator("en", {numeric: true});
const STEPS = {ArrowDown: 1, ArrowUp: -1, PageDown: 20, PageUp: -20};
const PRINTED = 500, SPARE = 12, CONTEXT = 3;
let table, tasks, places, state = {}, order = [], chosen = -1, haystacks = [];
const $ = (id) => document.getElementById(id);
const range = (n) => [...Array(n).keys()];
const set = (element, values) => Object.assign(element, values), filled = (element, inside) => { element.append(...inside); return element; };
const make = (tag, className, ...inside) => filled(set(document.createElement(tag), {className}), inside);
const button = (said, act) => set(make("button", "", said), {type: "button", onclick: act});
const link = (said, change, name = "") => set(make("a", name, said), {href: address(change)});
const folded = (title, ...inside) => make("details", "", make("summary", "", title), ...inside);
const option = (said, value, selected) => set(make("option", "", said), {value, selected});
const named = (element, label) => { element.setAttribute("aria-label", label); return element; };
async function unpack() {
  const packed = Uint8Array.from(atob($("data").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const found = await new Response(stream).json();
  let seen; // `at` says how many words ago, 0 for a new one
  for (const coded of Object.values(found)) if (coded.words) seen = 0, coded.at = coded.at.map((back) => back ? seen - back : seen++);
  return found;
}
// The value of a column for answer i: of a coded one the word, of a plain one the number or null.
function value(name, i) {
  if (name === "tests") return table.total?.[i] == null ? null : `${table.passed[i]}/${table.total[i]}`;
  const column = table[name];
  return column?.words ? column.words[column.at[i]] : column?.[i] ?? null;
}
const text = (i) => value("text", i);
const task = (i) => tasks.get(value("task", i)) ?? {};
const answersTo = (name) => range(table.n).filter((i) => value("task", i) === name);
const key = (i) => [value("stage", i), value("model", i), value("index", i), value("task", i)].join(":");
// Characters as Python counts them: one above U+FFFF is one.
const cut = (whole, from, to) => /[\ud800-\udfff]/.test(whole) ? [...whole].slice(from, to).join("") : whole.slice(from, to);
const program = (i) => cut(task(i).prompt ?? "", 0, table.head[i]) + cut(text(i), table.from[i], -table.left[i] || undefined) + value("rest", i);
const address = (change) => "#" + new URLSearchParams(Object.entries({...state, ...change}).filter(([, said]) => said));
const go = (change) => { history.replaceState(null, "", address(change)); read(); };
const close = () => { go({sample: "", beside: ""}); $("rows").focus(); };
function move(step) {
  const here = order.indexOf(chosen), place = Math.max(0, Math.min(order.length - 1, here + step));
  if (order.length) go({sample: key(order[here < 0 ? 0 : place]), beside: ""});
}
function read() {
  const before = state;
  state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const other = ["task", "find", "sort", ...FILTERS.map(([name]) => name)].some((n) => state[n] !== before[n]);
  for (const input of $("filters").elements) if (input.name) input.value = state[input.name] ?? "";
  if (other || !order.length) choose();
  places ??= new Map(range(table.n).map((i) => [key(i), i]));
  chosen = places.get(state.sample) ?? -1;
  show();
  if (state.sample !== before.sample) $("sample").scrollTop = 0;
  heads();
  draw();
  const rows = $("rows"), height = rowHeight(), top = order.indexOf(chosen) * height;
  if (top >= 0 && (top < rows.scrollTop || top + height > rows.scrollTop + rows.clientHeight)) rows.scrollTop = top - rows.clientHeight / 3;
}
function choose() {
  const wanted = FILTERS.filter(([name]) => state[name]).map(([name]) => [table[name].at, table[name].words.indexOf(state[name])]);
  const find = (state.find ?? "").toLowerCase();
  const found = (i) => haystack(i).includes(find) || text(i).toLowerCase().includes(find);
  order = range(table.n).filter((i) => wanted.every(([at, place]) => at[i] === place)
    && (!state.task || value("task", i) === state.task) && (!find || found(i)));
  const name = (state.sort ?? "").replace("-", ""), sign = state.sort?.startsWith("-") ? -1 : 1;
  if (COLUMNS.some(([known]) => known === name)) {
    const weights = weighed(name), last = (i) => weights(i) === null;
    order.sort((a, b) => last(a) || last(b) ? last(a) - last(b) : sign * (weights(a) - weights(b)));
  }
  $("count").textContent = `${order.length.toLocaleString("en")} of ${table.n.toLocaleString("en")}` + (state.task ? ` · task ${state.task}` : "");
  $("rows").scrollTop = 0;
  chart();
}
const haystack = (i) => haystacks[i] ??= ["task", "model", "reason", "failed"].map((name) => value(name, i)).join(" ").toLowerCase();
// The function from an answer to its place in the order of a column, null where it has none.
function weighed(name) {
  if (name === "tests") return (i) => table.total[i] ? table.passed[i] / table.total[i] : null;
  if (!table[name].words) return (i) => table[name][i];
  const {words, at} = table[name], sorted = words.toSorted(COLLATOR.compare);
  const places = words.map((word) => name === "outcome" ? WORST_FIRST.indexOf(word) : sorted.indexOf(word));
  return (i) => places[at[i]];
}
const some = (name) => name === "tests" ? table.total : table[name]?.words ? table[name].words.some((word) => word) : table[name];
const shown = () => COLUMNS.filter(([name]) => some(name) && (chosen < 0 || BESIDE.includes(name)));
const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) || 30;
function heads() {
  document.documentElement.style.setProperty("--columns", shown().map(([, , width]) => width).join(" "));
  $("heads").replaceChildren(...shown().map(([name, title, , number]) => {
    const head = button(title, () => go({sort: state.sort === name ? `-${name}` : state.sort === `-${name}` ? "" : name}));
    return set(head, {ariaPressed: state.sort?.replace("-", "") === name, className: `${name} ${number ? "number" : ""}`});
  }));
}
// Of the list only the rows in sight are there.
function draw() {
  const rows = $("rows"), height = rowHeight();
  const first = Math.max(0, Math.floor(rows.scrollTop / height) - SPARE);
  const last = Math.min(order.length, Math.ceil((rows.scrollTop + rows.clientHeight) / height) + SPARE);
  const spacer = set(make("div", "spacer"), {style: `height: ${order.length * height}px`});
  rows.replaceChildren(spacer, ...range(last - first).map((at) => row(first + at, height)));
  const here = order.indexOf(chosen);
  rows.setAttribute("aria-activedescendant", here >= first && here < last ? `row${here}` : "");
}
function row(place, height) {
  const i = order[place], made = make("div", "row");
  for (const [name, , , number] of shown()) {
    const said = String(value(name, i) ?? ""), more = name === "outcome" ? `verdict ${said}` : number ? "number" : "";
    made.append(set(make("span", `${name} ${more}`, said), {title: said}));
  }
  set(made, {id: `row${place}`, role: "option", ariaSelected: i === chosen, ariaSetSize: order.length, ariaPosInSet: place + 1});
  return set(made, {style: `top: ${place * height}px`, onclick: () => go({sample: key(i), beside: ""})});
}

// The map of the answers in the list, of one stage: a row for each source, a column for each task, both the better the
// earlier. A cell opens its first answer that fails, or its first; keys of arrows move from cell to cell, enter opens.
const passes = (i) => value("outcome", i) === "PASS", share = (answers) => answers.filter(passes).length / answers.length;
const grouped = (name, answers) => [...Map.groupBy(answers, (i) => value(name, i))].sort((a, b) => share(b[1]) - share(a[1]));
function chart() {
  if (!$("chart").open) return;
  const stage = state.stage || table.stage.words.at(-1), judged = order.filter((i) => value("stage", i) === stage && value("outcome", i) !== "not judged");
  const rows = grouped("model", judged), columns = grouped("task", judged), places = new Map(columns.map(([name], x) => [name, x]));
  const map = set($("map"), {width: columns.length || 1, height: rows.length || 1, style: `height: ${16 * rows.length}px`}), pen = map.getContext("2d"), cells = rows.map(() => []);
  rows.forEach(([, own], y) => grouped("task", own).forEach(([name, answers]) => {
    pen.fillStyle = `hsl(${share(answers) < 0.5 ? 15 : 210} 75% ${95 - 80 * Math.abs(share(answers) - 0.5)}%)`;
    pen.fillRect(places.get(name), y, 1, 1);
    cells[y][places.get(name)] = answers;
  }));
  $("sources").replaceChildren(...rows.map(([name, own]) => link(`${name} ${(100 * share(own)).toFixed(1)} %`, {model: name})));
  let x = 0, y = 0;
  const here = () => cells[y]?.[x] ?? [], within = (at, of) => Math.max(0, Math.min(of.length - 1, at));
  const to = (column, line) => {
    [x, y] = [within(column, columns), within(line, rows)];
    $("cell").textContent = rows.length ? `${columns[x][0]} · ${rows[y][0]}: ${here().filter(passes).length} of ${here().length} pass` : "nothing was judged";
  };
  const open = () => here().length && go({sample: key(here().find((i) => !passes(i)) ?? here()[0]), beside: ""});
  const point = (event) => to(Math.floor(event.offsetX / map.clientWidth * columns.length), Math.floor(event.offsetY / map.clientHeight * rows.length));
  const press = (event) => {
    const [right, down] = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}[event.key] ?? [0, 0];
    if (event.key === "Enter") open(); else if (right || down) to(x + right, y + down); else return;
    event.preventDefault(); event.stopPropagation();
  };
  set(map, {onpointermove: point, onclick: open, onfocus: () => to(x, y), onkeydown: press});
}
// Lines of [class, text]: a colour for words of Python, as Pygments names them.
function lines(code) {
  const found = [[]];
  const put = (kind, said) => said.split("\n").forEach((part, at) => { if (at) found.push([]); if (part) found.at(-1).push([kind, part]); });
  let end = 0;
  for (const match of code.matchAll(TOKEN)) {
    put("", code.slice(end, match.index));
    const [said, comment, string, number, word] = match;
    put(comment ? "c" : string ? "s" : number ? "m" : table.keywords.includes(word) ? "k" : table.builtins.includes(word) ? "nb" : "", said);
    end = match.index + said.length;
  }
  put("", code.slice(end));
  return found;
}
const coloured = (line) => line.map(([kind, said]) => kind ? make("span", kind, said) : said);
const plain = (line) => line.map(([, said]) => said).join("");
const code = (said) => make("pre", "code", ...lines(said).flatMap((line, at) => at ? ["\n", ...coloured(line)] : coloured(line)));
function show() {
  const sample = $("sample");
  $("main").classList.toggle("open", chosen >= 0);
  if (chosen < 0) return sample.replaceChildren();
  const i = chosen, said = text(i), run = program(i);
  const bar = make("div", "bar", make("h2", "", value("task", i)), button("previous", () => move(-1)), button("next", () => move(1)), button("close", close));
  const list = make("dl", "", pair("verdict", make("span", `verdict ${value("outcome", i)}`, value("outcome", i))));
  for (const [name, column] of FACTS) if (value(column, i) !== null && value(column, i) !== "") list.append(pair(name, String(value(column, i))));
  list.append(pair("link", link("this answer", {sample: key(i)})));
  const parts = [bar, list];
  if (value("failed", i)) parts.push(make("h3", "", "The first assertion that failed"), make("pre", "failed", value("failed", i)));
  parts.push(make("h3", "", "The program that ran"), code(run));
  if (said !== run && !run.endsWith(said)) parts.push(folded("as the model wrote it", make("pre", "", said)));
  for (const [model, names, values] of value("logs", i) ?? []) parts.push(...tokens(model, names, values));
  sample.replaceChildren(...parts, ...beside(i, run), ...problem(task(i)), ...way(i));
}
const pair = (name, fact) => make("div", "", make("dt", "", name), make("dd", "", fact));

// The redder a token, the less the model expected it: log P of 0 is clear, of -5 and less full.
function tokens(model, names, values) {
  const mean = values.reduce((sum, one) => sum + one, 0) / values.length;
  const marks = names.map((name, at) => set(make("span", "", name), {title: `log P ${values[at]}, P ${Math.exp(values[at]).toPrecision(3)}`,
    style: `background-color: rgba(214, 69, 65, ${Math.min(0.75, -values[at] / 6.7)})`}));
  return [make("h3", "", `log P by token${model ? `, ${model}` : ""}: ${mean.toFixed(3)} per token`), make("pre", "tokens", ...marks)];
}

// Teacher and student side by side: the other side of the pair, or the answer chosen there.
function beside(i, run) {
  const others = answersTo(value("task", i)).filter((j) => j !== i);
  if (!others.length) return [];
  const sides = ["imitated and ranked", "ranked below"], own = sides.indexOf(value("used", i));
  const partner = others.find((j) => own >= 0 && value("used", j) === sides[1 - own]) ?? others.find((j) => value("used", j)?.startsWith("imitated"))
    ?? others.find((j) => value("model", j) !== value("model", i)) ?? others[0];
  const j = others.includes(places.get(state.beside)) ? places.get(state.beside) : partner;
  const name = (one) => `${value("model", one)} #${value("index", one)} (${value("stage", one)}): ${value("outcome", one)}`;
  const select = named(make("select", "", ...others.map((one) => option(name(one), key(one), one === j))), "compare with"), pick = () => go({beside: select.value});
  const first = value("model", j).startsWith("teacher") ? [j, i] : [i, j];
  const [left, right] = first.map((one) => one === i ? run : program(one));
  const head = make("div", "head", make("pre", "", name(first[0])), make("pre", "", name(first[1])));
  const both = [left, right].map((said) => lines(said.replace(/\n$/, "")));
  return [make("h3", "", "Side by side"), make("div", "bar", make("label", "", "with ", set(select, {onchange: pick}))), make("div", "diff", head, ...compare(...both))];
}
function compare(left, right) {
  const rows = aligned(left.map(plain), right.map(plain)), made = [];
  const near = rows.map(([a, b]) => a < 0 || b < 0 || plain(left[a]) !== plain(right[b]));
  const kept = (at) => at === rows.length || near.slice(Math.max(0, at - CONTEXT), at + CONTEXT + 1).some((one) => one);
  const side = (list, n, kind) => make("pre", n < 0 ? "" : kind, ...(n < 0 ? [] : coloured(list[n])));
  for (let at = 0, hidden = 0; at <= rows.length; at++) {
    if (!kept(at)) { hidden++; continue; }
    if (hidden) made.push(make("div", "skip", hidden === rows.length ? "the same program" : `${hidden} equal lines`));
    hidden = 0;
    const [a, b] = rows[at] ?? [-1, -1], [cut, add] = near[at] ? ["cut", "add"] : ["", ""];
    if (rows[at]) made.push(make("div", near[at] ? "changed" : "same", side(left, a, cut), side(right, b, add)));
  }
  return made;
}

// Pairs of line numbers, -1 where a side has none: the longest common subsequence of the lines.
function aligned(left, right) {
  const n = left.length, m = right.length, best = range(n + 1).map(() => new Uint16Array(m + 1));
  for (let a = n - 1; a >= 0; a--) for (let b = m - 1; b >= 0; b--) best[a][b] = left[a] === right[b] ? best[a + 1][b + 1] + 1 : Math.max(best[a + 1][b], best[a][b + 1]);
  const rows = [];
  for (let a = 0, b = 0; a < n || b < m;) {
    const cut = [], added = [], equal = () => a < n && b < m && left[a] === right[b];
    while ((a < n || b < m) && !equal()) (b === m || (a < n && best[a + 1][b] >= best[a][b + 1])) ? cut.push(a++) : added.push(b++);
    rows.push(...range(Math.max(cut.length, added.length)).map((at) => [cut[at] ?? -1, added[at] ?? -1]));
    while (equal()) rows.push([a++, b++]);
  }
  return rows;
}
const PARTS = [["prompt", "The problem"], ["test", "Its tests"], ["canonical_solution", "Its reference"]];
const problem = (of) => [make("h3", "", "Problem"), ...PARTS.filter(([name]) => of[name]).map(([name, title]) => folded(title, code(of[name])))];
const chip = (j) => link(`${value("model", j)} #${value("index", j)}`, {sample: key(j), beside: ""}, value("outcome", j));
const chips = (answers) => answers.length ? [make("li", "chips", `answers, ${value("stage", answers[0])}: `, ...answers.map(chip))] : [];
function way(i) {
  const chain = [], list = make("ol", "way"), own = value("task", i);
  for (let name = own; name && !chain.includes(name); name = tasks.get(name)?.parent_id) chain.unshift(name);
  for (const name of chain) {
    const of = tasks.get(name) ?? {}, how = of.operator ? `evolved: ${of.operator}` : name === own ? "the problem" : "seed";
    const answered = table.task.words.includes(name) && name !== own;
    const step = make("li", "", `${how}: `, answered ? link(name, {task: name, sample: ""}) : name, of.spec ? ` (${of.spec})` : "");
    if (of.prompt && name !== own) step.append(folded("its prompt", code(of.prompt)));
    list.append(step);
  }
  const story = tasks.get(own)?.story ?? [], late = story.findIndex(([what]) => ["rank", "loss before and after"].includes(what));
  const told = story.map(([what, said]) => make("li", "", `${what}: ${said}`)), first = late < 0 ? told.length : late;
  const [given, judged] = [false, true].map((last) => answersTo(own).filter((j) => last === (value("stage", j) === "evaluation")));
  list.append(...told.slice(0, first), ...chips(given), ...told.slice(first), ...chips(judged));
  return [make("h3", "", "The problem from its seed on"), list, make("p", "", link("all answers to it", {task: own, sample: ""}))];
}
function pressed(event) {
  const typing = event.target.matches("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || (event.target.matches("select") && event.key !== "Escape")) return;
  const inside = $("sample").contains(event.target);
  if (event.key === "/" && !typing) $("find").focus();
  else if (STEPS[event.key] && !inside) move(STEPS[event.key]);
  else if (event.key === "Enter" && !event.target.matches("a, button, summary")) { if (chosen < 0) move(1); $("sample").focus(); }
  else if (event.key === "Escape") { if (typing) $("rows").focus(); else if (inside && event.target !== $("sample")) $("sample").focus(); else close(); }
  else return;
  event.preventDefault();
}
function start() {
  for (const [name, title] of FILTERS.filter(([name]) => table[name].words.length > 1)) {
    const words = [...table[name].words].filter((word) => word).sort(COLLATOR.compare);
    const select = make("select", "", option("all", ""), ...words.map((word) => option(word, word)));
    $("filters").append(make("label", "", `${title} `, set(select, {name, onchange: () => go({[name]: select.value})})));
  }
  const find = set(named(make("input", ""), "find"), {type: "search", name: "find", id: "find", placeholder: "task, reason or code ( / )", oninput: () => go({find: find.value})});
  const reset = () => go(Object.fromEntries(Object.keys(state).map((name) => [name, ""])));
  $("filters").append(find, button("reset", reset), set(make("output", ""), {id: "count"}));
  $("filters").onsubmit = (event) => event.preventDefault();
  $("chart").ontoggle = chart;
  $("rows").onscroll = () => requestAnimationFrame(draw);
  set(window, {onresize: draw, onafterprint: draw, onhashchange: read});
  onbeforeprint = () => $("rows").replaceChildren(...range(Math.min(PRINTED, order.length)).map((place) => row(place, 0)));
  document.onkeydown = pressed;
  read();
}
unpack().then((found) => {
  [table, tasks] = [found, new Map(found.tasks.map((one) => [one.task_id, one]))];
  $("main").hidden = false;
  start();
}).catch((error) => {
  const holder = document.querySelector("noscript");
  const said = new DOMParser().parseFromString(holder.textContent, "text/html").body;
  holder.replaceWith(make("p", "", `This browser cannot unpack the answers (${error}).`), said);
}).finally(() => { document.documentElement.dataset.ready = Math.round(performance.now()); });
