"""The sums of a loss term that `pri3d.run.metrics` makes means of."""

from pri3d.pretrain.objective import LossTerm
from pri3d.run.metrics import SAMPLES


def sums(name: str, term: LossTerm) -> dict[str, float]:
    """The number of samples that have a term, and the sums of its figures over them."""
    values = {f"{name}{SAMPLES}": len(term.loss_S), f"{name}_loss": term.loss_S.sum().item()}
    if term.loss_chance:
        values[f"{name}_loss_chance"] = sum(term.loss_chance)
    if not term.candidates:
        return values
    return values | {
        f"{name}_recall": sum(term.recall),
        f"{name}_recall_chance": sum(1 / n for n in term.candidates),
        f"{name}_candidates": sum(term.candidates),
    }
