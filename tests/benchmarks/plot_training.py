"""Draws the growth table of `training.txt`: milliseconds of one group against K and length.

python tests/benchmarks/plot_training.py        # writes training.svg beside it
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent
TICKS = (100, 200, 500, 1000, 2000, 5000)
HEAD = "| K | length | positions |"


def growth(text: str) -> list[dict[str, float]]:
    """The rows of the table whose head begins with HEAD. ValueError if there is none."""
    lines = text.splitlines()
    heads = [at for at, line in enumerate(lines) if line.startswith(HEAD)]
    if not heads:
        raise ValueError(f"no table begins with {HEAD!r}")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[heads[0] :]]
    names, rows = cells[0], [row for row in cells[2:] if len(row) == len(cells[0])]
    return [
        {
            name: float(value.rstrip("x").replace(",", ""))
            for name, value in zip(names, row, strict=True)
        }
        for row in rows
    ]


def main() -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "training"
    rows = growth((HERE / "training.txt").read_text(encoding="utf-8"))
    cuts = [
        ("K", "responses of a prompt (256 tokens long)", rows[:5]),
        ("length", "tokens of prompt + response (K = 8)", rows[5:]),
    ]
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, (name, label, some) in zip(axes, cuts, strict=True):
        places = [row[name] for row in some]
        axis.plot(places, [row["literal ms"] for row in some], "s--", color="#888", label="literal")
        axis.plot(places, [row["ours ms"] for row in some], "o-", color="#06c", label="rrtf")
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="ms, forward and backward")
        axis.set_xticks(places, [f"{place:g}" for place in places])
        axis.set_yticks(TICKS, [f"{tick:,}" for tick in TICKS])
        axis.set_ylim(70, 7000 if name == "length" else 1000)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(HERE / "training.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
