"""What a cache may keep, and how that is chosen and laid out."""

from dataclasses import asdict, dataclass

from icd_lib.errors import ConfigError
from icd_lib.models.cache.cache import PAGE
from icd_lib.transforms.kv.scores import SCORES

UNITS = ("token", "page")
LAYOUTS = ("linear", "iterative")


@dataclass(frozen=True)
class KvPolicy:
    """Which tokens a cache keeps, in each layer and KV group.

    budget   tokens that every KV group keeps, one number or one per layer; groups keep equally many, but not the same
    score    what a token is worth: "attention" that the last queries paid it, "key_norm", "recent", or "random"
    unit     what is kept or not: "token", or "page" whole pages, by the sum of their tokens' scores (no holes arise)
    layout   "linear" keeps every page with a living token where it was, holes and all; "iterative" packs the living
             tokens into whole pages and drops the rest
    sinks    the first tokens of a row, always kept; window: the last ones (Xiao et al. 2024)
    observe  last queries whose attention counts (Li et al. 2024, SnapKV); pool: scores become the largest of so many
             neighbours, so that words stay whole
    every    tokens that are decoded between two evictions; the first one is after the prompt
    page     tokens; seed: of "random"
    """

    budget: int | tuple[int, ...]
    score: str = "attention"
    unit: str = "token"
    layout: str = "iterative"
    sinks: int = 4
    window: int = 32
    observe: int = 32
    pool: int = 1
    every: int = 64
    page: int = PAGE
    seed: int = 0

    def __post_init__(self):
        for name, allowed in (("score", SCORES), ("unit", UNITS), ("layout", LAYOUTS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"kv.{name} '{getattr(self, name)}' is unknown; it takes one of {list(allowed)}")
        for name, least in (("sinks", 0), ("window", 1), ("observe", 1), ("pool", 1), ("every", 1), ("page", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"kv.{name} is an integer >= {least}, got {value!r}")
        if not self.pool % 2:
            raise ConfigError(f"kv.pool is odd, as many neighbours on either side; got {self.pool}")
        for layer, budget in enumerate(self.budgets):
            if budget < self.least:
                raise ConfigError(
                    f"kv.budget of {budget} tokens (layer {layer}) is below the {self.least} that are always kept "
                    f"(sinks {self.sinks}, window {self.window}, in {self.unit}s); raise it or lower those"
                )

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budget as a tuple: one entry for all layers, or one for each."""
        return self.budget if isinstance(self.budget, tuple) else (self.budget,)

    @property
    def least(self) -> int:
        """Tokens that are kept whatever they are worth: where pages are, at most what their pages hold."""
        if self.unit == "token":
            return self.sinks + self.window
        pages = -(-self.sinks // self.page) + -(-(self.window - 1) // self.page) + 1
        return pages * self.page

    def of_layer(self, layer: int) -> int:
        """The budget of one layer, tokens."""
        return self.budgets[layer] if len(self.budgets) > 1 else self.budgets[0]

    def to_json(self) -> dict:
        return asdict(self)
