"""What a line of a run's `metrics.jsonl` holds: loss beside recall beside chance.

A line holds means over the steps since the line before, except `skipped`, `pairs` and `elapsed_s`,
which count from the run's beginning (also across interruptions). For a term T of the loss:
T_loss, and T_loss_chance of a network that knows nothing (ln(candidates)); T_recall, the share of
anchors that find their match first, and T_recall_chance = 1 / candidates; T_candidates. A loss
that falls while recall stays at chance has learned something other than to match. The depth term
has a loss only, global_kd and gupta a loss and its chance.
"""

from collections import Counter
from typing import Any

import torch

from pri3d.pretrain.objective import LossTerm
from pri3d.run.metrics import pace


def sums(name: str, terms: LossTerm) -> dict[str, float]:
    """What `line` needs of one step's terms, to be added up."""
    values = {f"{name}_samples": len(terms.loss_S), f"{name}_loss": terms.loss_S.sum().item()}
    if terms.loss_chance:
        values[f"{name}_loss_chance"] = sum(terms.loss_chance)
    candidates = terms.candidates
    if not candidates:
        return values
    return values | {
        f"{name}_recall": sum(terms.recall),
        f"{name}_recall_chance": sum(1 / n for n in candidates),
        f"{name}_candidates": sum(candidates),
    }


def line(
    step: int, steps: int, lr: float, window: Counter, ever: Counter, device: torch.device
) -> dict:
    """One line of `metrics.jsonl` from the sums since the last line and since the beginning."""
    values: dict[str, Any] = {"step": step, "loss": None, "grad_norm": None}
    if window["updates"]:
        values["loss"] = window["loss"] / window["updates"]
        values["grad_norm"] = window["grad_norm"] / window["updates"]
    for key in [key for key in window if key.endswith("_samples")]:
        term = key.removesuffix("_samples")
        for figure in ("loss", "loss_chance", "recall", "recall_chance", "candidates"):
            if window[key] and f"{term}_{figure}" in window:
                values[f"{term}_{figure}"] = window[f"{term}_{figure}"] / window[key]
    return values | {"lr": lr} | pace("pairs", step, steps, window, ever, device)
