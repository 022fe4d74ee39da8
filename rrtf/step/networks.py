"""The model that is trained: whole or by adapters, in one process or split among several.

LoRA (arXiv:2106.09685) and QLoRA (arXiv:2305.14314) are peft's: the base is frozen, in bfloat16
where that is the precision, in four bits for QLoRA (bitsandbytes). What is saved is a plain model
in any case: adapters are merged into the base as it was published, and kept beside it.
Not covered: adapters on embeddings, QLoRA split among processes.
"""

import ctypes
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rrtf import store
from rrtf.step import batches, packing, scoring, sharding

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OPTIMIZERS = ("adamw", "adafactor")
PREFIX = "network."  # of the names in a `Scorer`


class Scorer(nn.Module):
    """`scoring.score` as a forward pass: FSDP gathers weights when a module is called.

    `way` is the name of the one of `scoring.WAYS` that it takes, see `settle`.
    """

    def __init__(self, network: "PreTrainedModel"):
        super().__init__()
        self.network, self.way = network, "packed"

    def forward(self, batch: Mapping[str, Any], logs_by: str = "") -> Any:
        """(sums, lengths) (R,) of the responses; of one way `logs_by`, the log-probabilities."""
        if logs_by:
            return scoring.WAYS[logs_by](self.network, batch)
        return scoring.score(self.network, batch, way=scoring.WAYS[self.way])


def device() -> torch.device:
    """Where this process computes."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(bfloat16: bool) -> Any:
    """Matrix products in bfloat16 while the block runs; weights and sums stay float32."""
    return torch.autocast(device().type, torch.bfloat16) if bfloat16 else nullcontext()


@cache
def _trimmer() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim() -> None:
    """Gives freed memory back to the system.

    Batches differ in size, so glibc's heap fragments: without this a run's resident memory
    doubles within thirty updates. Every five updates it costs under one percent of the time.
    """
    if _trimmer():
        _trimmer()(0)


class Lora(NamedTuple):
    """LoRA's settings: W + alpha / rank * B A for every targeted W, of which A and B are learnt.

    rank: 0 trains all weights instead. targets: `all-linear`, or names of modules with commas.
    qlora: the base in four bits.
    """

    rank: int
    alpha: float
    dropout: float
    targets: str
    qlora: bool


def load(
    model: str | Path,
    *,
    dropout: float,
    threads: int,
    bfloat16: bool,
    attention: str,
    checkpointing: bool,
    lora: Lora,
    seed: int,
) -> tuple[Scorer, "PreTrainedTokenizerBase"]:
    """(what is trained, its tokenizer); split among the processes if there are several.

    attention: see `packing.choose`. checkpointing: hidden states are computed again in the backward
    pass, layer by layer. seed: that of the adapters. ValueError for what cannot be trained.
    """
    check(lora)
    several, dtype = sharding.processes() > 1, torch.float32
    where = ("cpu" if sharding.rank() == 0 else "meta") if several else device().type
    if lora.rank and bfloat16:
        dtype = torch.bfloat16  # frozen: no update is lost in its rounding
    four = {"quantization_config": _four_bits(bfloat16)} if lora.qlora else {}
    network, tokenizer = packing.load(
        model, dropout=dropout, threads=threads, device=where, dtype=dtype, **four
    )
    packing.use(network, attention, device=device().type, half=bfloat16)
    if lora.rank:
        _inject(network, adapters(lora), seed=seed)
    if checkpointing:
        network.activation_checkpointing_enable({"use_reentrant": False})
    scorer = Scorer(network)
    if several:
        names = [name for name in sharding.units(network) if name != sharding.ROOT]
        layers = [network.get_submodule(name) for name in names]
        sharding.shard(scorer, layers, device=device(), bfloat16=bfloat16)
    return scorer, tokenizer


def check(lora: Lora) -> None:
    """ValueError for what cannot be trained that way here, before a model is loaded."""
    if lora.rank < 0 or not lora.targets.strip():
        raise ValueError(f"lora_rank {lora.rank} on {lora.targets!r}: expected a rank and modules")
    if not lora.qlora:
        return
    if not lora.rank:
        raise ValueError("qlora freezes the base: give lora_rank, the size of what is trained")
    if sharding.processes() > 1:
        raise ValueError("qlora works in one process; use LoRA without it, or one process")
    if not find_spec("bitsandbytes"):
        raise ValueError("qlora needs bitsandbytes, which is not installed: pip install -e .[gpu]")


def _four_bits(bfloat16: bool) -> Any:
    """QLoRA's storage: normal floats of four bits, their scales quantised again."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if bfloat16 else torch.float32,
    )


def adapters(lora: Lora) -> "LoraConfig":
    """The settings as peft takes them."""
    from peft import LoraConfig

    names = [name.strip() for name in lora.targets.split(",")]
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if lora.targets == "all-linear" else names,
        task_type="CAUSAL_LM",
    )


def _inject(network: "PreTrainedModel", settings: "LoraConfig", *, seed: int) -> None:
    """Puts adapters into `network` and freezes the rest; B starts at zero, A as `seed` draws it."""
    from peft import inject_adapter_in_model

    torch.manual_seed(seed)
    inject_adapter_in_model(settings, network)
    _require_own(network)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _require_own(network: "PreTrainedModel") -> None:
    """ValueError for an adapter on a weight of two modules: merged, it would change both."""
    owners: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name.removesuffix(".weight"))
    for names in owners.values():
        adapted = [name for name in names if name.endswith(".base_layer")]
        if adapted and len(names) > 1:
            both = " and ".join(name.removesuffix(".base_layer") for name in names)
            raise ValueError(
                f"lora_targets: {both} are one weight, and an adapter belongs to one of them: name "
                "modules with weights of their own, or all-linear, which leaves these out"
            )


def settle(
    scorer: Scorer, examples: Sequence[batches.Example], *, bfloat16: bool, name: str
) -> scoring.Choice:
    """Sets the way in which `scorer` scores: the first that is exact, see `scoring.choose`.

    In float32 where the weights are, else as training multiplies. All processes take the same. A
    warning says where it is not the fastest.
    """
    scorer.eval()
    several, network = sharding.processes(), scorer.network
    whole = several == 1 and all(p.dtype == torch.float32 for p in network.parameters())
    half = bfloat16 and not (whole and not network.config._attn_implementation.startswith("flash"))

    def log_probs(way: str, some: Sequence[batches.Example]) -> Tensor:
        return scorer(batches.collate(some, device=device()), way)

    with torch.no_grad(), autocast(half):
        choice = scoring.choose(
            log_probs,
            examples,
            bound=scoring.BOUNDS[torch.bfloat16 if half else torch.float32],
            agreed=lambda found: sharding.total([found])[0] / several,
            name=f"{name} ({type(network).__name__})",
        )
    sharding.reshard(scorer)
    scorer.way = choice.way
    if choice.reason and sharding.rank() == 0:
        costs = "with whole logits" if choice.way == "whole logits" else "row by row, slower"
        logging.getLogger(__name__).warning(
            "%s: scored through its own forward, %s (%s)", name, costs, choice.reason
        )
    return choice


def log_prob_sums(
    scorer: Scorer,
    examples: Sequence[batches.Example],
    *,
    most: int,
    budget: int,
    bfloat16: bool,
    kept: Path,
) -> list[tuple[float, ...]]:
    """The log-probability sum of every response as the model is now, without gradients.

    `most` groups at once, and `budget` tokens unless it is 0 or one group has more. Several
    processes take turns at such parts and tell each other what they found. Written to `kept`, and
    read where a run goes on.
    """
    sharding.wait()
    if kept.exists():
        return [tuple(sums) for sums in store.read_json(kept)]
    scorer.eval()
    several, rank = sharding.processes(), sharding.rank()
    found = [[0.0] * len(example.responses) for example in examples]
    sizes, every = [example.n_tokens for example in examples], range(len(examples))
    parts = [
        part
        for start in every[::most]
        for part in sharding.filled(every[start : start + most], sizes, budget)
    ]
    turns = [*enumerate(parts), *[(-1, parts[0])] * (-len(parts) % several)]
    for turn, places in turns[rank::several]:  # all take part in every forward pass
        some = [examples[place] for place in places]
        with torch.no_grad(), autocast(bfloat16):
            flat = iter(scorer(batches.collate(some, device=device()))[0].tolist())
        for place in places if turn >= 0 else ():
            found[place] = [next(flat) for _ in examples[place].responses]
    sharding.reshard(scorer)
    flat = iter(sharding.total([value for values in found for value in values]))
    sums = [tuple(next(flat) for _ in values) for values in found]
    if rank == 0:
        store.write_json(kept, sums)
    return sums


def make_optimizer(root: nn.Module, name: str, *, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with betas .9 and .95, or Adafactor (arXiv:1804.04235) with a given learning rate.

    Adafactor keeps a row and a column instead of AdamW's two matrices per weight. Vectors (biases,
    norms) do not decay. ValueError for another name.
    """
    learnt = [p for p in root.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learnt if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learnt if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), eps=1e-8, fused=True)
    if name == "adafactor":
        from transformers import Adafactor

        chosen = Adafactor(groups, lr=0.0, scale_parameter=False, relative_step=False)
        if sharding.processes() > 1:
            sharding.split_factors(chosen)
        return chosen
    raise ValueError(f"unknown optimizer {name!r}: expected one of {', '.join(OPTIMIZERS)}")


def clip_gradients(root: nn.Module, clip: float) -> float:
    """Scales the gradients to norm `clip` (0 = never) where it is larger; returns what it was."""
    norm = nn.utils.clip_grad_norm_(root.parameters(), clip or math.inf)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def save(
    scorer: Scorer,
    tokenizer: "PreTrainedTokenizerBase",
    output: Path,
    *,
    model: str | Path,
    save_dtype: str,
    lora: Lora,
    measured: bool = False,
) -> float:
    """Writes model and tokenizer to `output` from the first process; adapters to `adapter` too.

    Where it is to be `measured`, which reads the start model once more, the first process returns
    `rounded` of what was written; else 0.
    """
    state = sharding.gathered(scorer)
    if sharding.rank():
        return 0.0
    state = {name.removeprefix(PREFIX): value for name, value in state.items()}
    if lora.rank:
        network = _merged(state, output / "adapter", model=model, lora=lora)
    else:
        network = _filled(scorer.network, state)
    lost = rounded(network, Path(model), getattr(torch, save_dtype)) if measured else 0.0
    network.to(getattr(torch, save_dtype)).save_pretrained(output)
    tokenizer.save_pretrained(output)
    return lost


def rounded(network: "PreTrainedModel", start: Path, dtype: torch.dtype) -> float:
    """What rounding to `dtype` changes, as a share of what training changed since `start`.

    Root mean squares over all weights. A short training at a small rate moves most weights by less
    than half a step of bfloat16, which takes them back; 0 where nothing moved or is rounded.
    """
    from safetensors import safe_open

    own, lost, moved = dict(network.named_parameters()), 0.0, 0.0
    for file in start.glob("model*.safetensors") if dtype != torch.float32 else ():
        with safe_open(file, "pt") as held:
            for name in own.keys() & {*held.keys()}:
                now = own[name].detach().float().cpu()
                lost += (now.to(dtype).float() - now).square().sum().item()
                moved += (now - held.get_tensor(name).float()).square().sum().item()
    return math.sqrt(lost / moved) if moved else 0.0


def _filled(network: "PreTrainedModel", state: Mapping[str, Tensor]) -> "PreTrainedModel":
    """A model like `network` in one piece, with the weights of `state`."""
    with torch.device("meta"):
        whole = type(network)(network.config)
    whole.generation_config = network.generation_config
    whole.load_state_dict(state, strict=False, assign=True)
    whole.tie_weights()
    return whole


def _merged(
    state: Mapping[str, Tensor], folder: Path, *, model: str | Path, lora: Lora
) -> "PreTrainedModel":
    """The base as it was published, in float32 on the CPU, with the adapters of `state` in it."""
    from peft import get_peft_model

    base, _ = packing.load(model, dropout=0.0, threads=torch.get_num_threads(), device="cpu")
    whole = get_peft_model(base, adapters(lora))
    learnt = {f"base_model.model.{n}": v.cpu() for n, v in state.items() if "lora_" in n}
    lost = whole.load_state_dict(learnt, strict=False).unexpected_keys
    if lost:
        raise RuntimeError(f"adapters without a place in {model}: {', '.join(lost)}")
    whole.save_pretrained(folder)
    return whole.merge_and_unload()


def model_card(title: str, about: str, settings: Mapping[str, Any], *, start: str, tag: str) -> str:
    """The README.md of a trained model: what it is, from what, how, how far."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in sorted(settings.items()))
    base = f"base_model: {start}\n" if "/" in start else ""  # the hub takes no other
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\n"
        f"{base}tags: [code, {tag}]\n---\n\n# {title}\n\n{about} `training.json` "
        "has every update.\n\nThe model writes short Python functions; execute what it writes "
        f"only in isolation.\n\n## Recipe\n\n| setting | value |\n| --- | --- |\n{rows}\n"
    )
