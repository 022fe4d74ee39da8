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
