// One button opens or closes the code of all cells; the choice holds for every page.
const KEY = "rrtf.code";
const cells = document.querySelectorAll("details.code");
const button = document.getElementById("code");

function remembered() {
  try { return localStorage.getItem(KEY) === "open"; } catch { return false; }
}

function show(open) {
  for (const cell of cells) cell.open = open;
  button.textContent = open ? "hide code" : "show code";
  button.setAttribute("aria-pressed", open);
}

button.hidden = cells.length === 0;
button.addEventListener("click", () => {
  const open = button.textContent === "show code";
  show(open);
  try { localStorage.setItem(KEY, open ? "open" : "closed"); } catch { /* private mode */ }
});
show(remembered());

// Every table can be taken along: its cells as comma-separated values, made where the page is read.
function csv(table) {
  const quoted = (cell) => '"' + cell.innerText.trimEnd().replaceAll('"', '""') + '"';
  return [...table.rows].map((row) => [...row.cells].map(quoted).join(",") + "\r\n").join("");
}

for (const table of document.querySelectorAll("table.rrtf-table:has(thead)")) {
  const link = document.createElement("a"), name = table.caption?.textContent ?? document.title;
  Object.assign(link, { textContent: "csv", className: "csv", href: "#", title: "this table as CSV" });
  link.download = name.replace(/[^\w.]+/g, "-").slice(0, 40) + ".csv";
  link.addEventListener("click", () => {
    link.href = URL.createObjectURL(new Blob([csv(table)], { type: "text/csv" }));
  });
  table.after(link);
}
