"""How hard do the two parts of RRTF's loss pull, for any model and ranked groups?

    python tests/benchmarks/bench_gradients.py groups.jsonl MODEL... [--groups 64]

A line for each model: norms of the gradients of L_rank, of L_ft as the paper's token sum and as the
token mean, means over batches of 8 groups in float32, and L_rank's share beside either. Minutes and
12 bytes a weight for a model of a billion parameters. Groups are those that `rrtf rank` writes.
"""

import argparse

from rrtf import engines, store
from rrtf.records import RankedGroup
from rrtf.step import explain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--groups", dest="count", type=int, default=64)
    given = parser.parse_args()
    groups = store.read(given.groups, RankedGroup)[: given.count]
    models = {name: engines.model_folder(name) for name in given.models}
    for row in explain.gradient_rows(groups, models):
        shown = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
        print("; ".join(shown))


if __name__ == "__main__":
    main()
