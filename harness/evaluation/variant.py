"""A network on offer for evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from subnetbench.harness.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Origin:
    """The finished run whose own network a variant of another run is: its id and its method."""

    run_id: str
    method: str


@dataclass
class Variant:
    """One network that a trained method offers: a subnetwork at a capacity, a ticket, a student, a teacher.

    `build` returns the plain module in evaluation mode, made only when somebody wants it; its output is logits
    (classification) or embeddings (retrieval, text_image). Scores between different `space`s are refused.
    `capacity` is the share of prunable weights kept. `text_encoder` is set on image encoders for text search.
    `frozen` says that the network comes from an input of the run and never changes, so that its outputs may be cached.
    `origin` is that input: variants of inputs come with it, and a network that is made from one drops it (by None). What
    is scored is then the input's, and leaderboards show it as such.
    `continues` names the variant of the same run whose intermediate results this one can continue from (early exit).
    """

    name: str
    build: Callable[[], nn.Module]
    preprocessing: Preprocessing
    space: str = ""
    capacity: float | None = None
    text_encoder: Callable[[Sequence[str]], Tensor] | None = None
    frozen: bool = False
    origin: Origin | None = None
    continues: str = ""
    details: dict[str, float | str] = field(default_factory=dict)
