// The loss of one group under the reader's hand: a slider for the score of each answer and for what the model finds of
// it, and equations (1) to (4) as they move. The rows come as data; without a script the tables beside say the same.
for (const box of document.querySelectorAll(".rrtf-sliders:empty")) {
  const rows = JSON.parse(box.dataset.rows), SVG = "http://www.w3.org/2000/svg";
  const make = (tag, ...inside) => { const one = document.createElement(tag); one.append(...inside); return one; };
  const draw = (tag, values, said = "") => {
    const one = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(values)) one.setAttribute(name, value);
    one.textContent = said;
    return one;
  };
  const cells = rows.map(() => make("td"));
  const slider = (row, name, least, most, step) => {
    const input = Object.assign(make("input"), {type: "range", min: least, max: most, step, value: row[name]}), said = make("output");
    input.setAttribute("aria-label", `${name} of ${row.source}, ${row.outcome}`);
    input.oninput = () => { row[name] = Number(input.value); compute(); };
    row.show.push(() => { said.textContent = row[name].toFixed(2); });
    return make("td", input, " ", said);
  };
  const sum = make("p"), plot = draw("svg", {viewBox: "0 0 520 190", role: "img", "aria-label": "L_rank of each pair against p_tea - p_stu", width: 520});
  function compute() {
    const tea = rows.find((row) => row.source === "teacher"), lines = [], at = (gap, loss) => [260 + 85 * gap, 165 - 16 * loss].map((n) => n.toFixed(1)).join(",");
    let ranked = 0;
    rows.forEach((row, k) => {
      row.show.forEach((show) => show());
      const weight = tea.r - row.r, gap = tea.p - row.p, loss = Math.max(0, weight) * Math.max(0, -gap);
      ranked += loss;
      cells[k].textContent = row === tea ? "" : `${Math.max(0, weight).toFixed(2)} x ${Math.max(0, -gap).toFixed(2)} = ${loss.toFixed(2)}`;
      if (row === tea) return;
      lines.push(draw("polyline", {points: [at(-3, 3 * Math.max(0, weight)), at(0, 0), at(3, 0)].join(" "), fill: "none", stroke: row.shade, opacity: 0.5}));
      const [cx, cy] = at(gap, loss).split(",");
      lines.push(draw("circle", {cx, cy, r: 5, fill: row.shade}));
    });
    const imitated = -tea["|y|"] * tea.p, axis = {stroke: "currentColor", opacity: 0.4};
    const words = [[8, 184, "wrong order: pushes"], [370, 184, "right order: silent"], [268, 14, "L_rank of the pair"]];
    plot.replaceChildren(draw("path", {d: "M0 165H520M260 0V165", ...axis}), ...lines,
      ...words.map(([x, y, said]) => draw("text", {x, y, "font-size": 12, fill: "currentColor"}, said)));
    sum.textContent = `L = L_rank + L_ft = ${ranked.toFixed(2)} + ${imitated.toFixed(1)} = ${(ranked + imitated).toFixed(1)}`;
  }
  const heads = ["", "situation", "score r", "p, log P per token", "L_rank"], table = make("table", make("tr", ...heads.map((head) => make("th", head))));
  rows.forEach((row, k) => {
    row.show = [];
    table.append(make("tr", make("td", row.source), make("td", row.outcome), slider(row, "r", 0, 6, 0.5), slider(row, "p", -4, 0, 0.01), cells[k]));
  });
  table.className = "rrtf-table";
  box.append(table, sum, plot);
  compute();
}
