"""Takes tokens out of a cache by a policy: after the prompt, and every so many tokens that are decoded."""

import torch

from icd_lib.errors import ConfigError
from icd_lib.models.cache.layer import PagedLayer
from icd_lib.transforms.kv.layout import iterative_layout, linear_layout
from icd_lib.transforms.kv.policy import KvPolicy
from icd_lib.transforms.kv.scores import score_slots
from icd_lib.transforms.kv.select import keep_pages, keep_tokens, protected_slots


class KvEvictor:
    """The evictor of a `PagedCache`: keeps each layer within its budget of `policy`.

    A layer is looked at after every pass over several tokens, and over one when `every` tokens are over the budget:
    between two evictions it holds up to budget + every tokens.
    """

    def __init__(self, policy: KvPolicy):
        self.policy = policy

    @property
    def observed(self) -> int:
        return self.policy.observe if self.policy.score == "attention" else 0

    @property
    def spare(self) -> int:
        return self.policy.every

    def after(self, layer: PagedLayer, new: int) -> None:
        """Evict from a layer that was given `new` tokens, where it holds more than it may."""
        policy = self.policy
        if len(policy.budgets) > 1 and layer.index >= len(policy.budgets):
            raise ConfigError(
                f"kv.budget has {len(policy.budgets)} entries and the model more layers; give one for each of them"
            )
        budget = policy.of_layer(layer.index)
        if layer.living <= budget + (policy.every if new == 1 else 0):
            return
        keep = find_kept(layer, policy, budget)
        slots, alive = linear_layout(keep, policy.page) if policy.layout == "linear" else iterative_layout(keep)
        layer.keep_slots(slots, alive, policy.every)


def find_kept(layer: PagedLayer, policy: KvPolicy, budget: int) -> torch.Tensor:
    """Which slots of a layer stay, bool (B, G, used): at most `budget` tokens of every row and group."""
    columns = layer.all_columns()
    scores = score_slots(layer, layer.store.read()[0], policy)
    protected = protected_slots(columns, layer.start, layer.seen, policy.sinks, policy.window)
    if policy.unit == "page":
        return keep_pages(scores, columns, protected, budget, policy.page)
    return keep_tokens(scores, columns, protected, budget)
