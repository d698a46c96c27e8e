"""What a method is: two verbs, `train` and `evaluate`, and the hooks through which most methods fill them.

A method is one file in `methods/` with one subclass, registered by `register_method`. It knows its modules, its
losses and its variants. It knows no launcher, no device list and no process group: the loop hands it a `Step`
whose gradients are already averaged over processes and micro-batches.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.config import MethodConfig
from subnetbench.harness.data import Preprocessing, TaskData
from subnetbench.harness.streams import numpy_generator
from subnetbench.harness.tasks import Task

if TYPE_CHECKING:
    from subnetbench.harness.context import Context
    from subnetbench.harness.records import Score
    from subnetbench.harness.training.step import Batch, Step

ConfigT = TypeVar("ConfigT", bound=MethodConfig)


@dataclass(frozen=True)
class Progress:
    """Where a stage stands when a step is taken; schedules are functions of it, so nothing of them is saved."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    steps_per_epoch: int


class Schedule(Protocol):
    """Sets the hyper-parameters of an optimizer before each step.

    Each parameter group keeps the value it was created with under `initial_lr`.
    """

    def apply(self, optimizer: torch.optim.Optimizer, progress: Progress) -> None: ...


@dataclass
class Optimization:
    """One optimizer with its schedule and its gradient clipping.

    `clip_norm` bounds the total norm of the gradients of this optimizer's parameters.
    """

    optimizer: torch.optim.Optimizer
    schedule: Schedule | None = None
    clip_norm: float | None = None

    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


@dataclass(frozen=True)
class Stage:
    """A part of training with its own epochs, optimizers and selection; each is resumable.

    `select` keeps the weights of the best validation instead of the last ones. `epochs=0` is a stage without
    training: only its `start_stage` hook runs (pruning, calibration).
    """

    name: str
    epochs: int
    select: bool = True


@dataclass
class Variant:
    """One network that a trained method offers: a subnetwork at a capacity, a ticket, a student, a teacher.

    `build` returns the plain module in evaluation mode, made only when somebody wants it; its output is logits
    (classification) or embeddings (retrieval, text_image). Scores between different `space`s are refused.
    `capacity` is the share of prunable weights kept. `text_encoder` is set on image encoders for text search.
    `frozen` says that the network comes from an input of the run and never changes, so that its outputs may be cached.
    `continues` names the variant of the same run whose intermediate results this one can go on from (early exit).
    """

    name: str
    build: Callable[[], nn.Module]
    preprocessing: Preprocessing
    space: str = ""
    capacity: float | None = None
    text_encoder: Callable[[Sequence[str]], Tensor] | None = None
    frozen: bool = False
    continues: str = ""
    details: dict[str, float | str] = field(default_factory=dict)


class Method(ABC, Generic[ConfigT]):
    """The interface of all methods: `train` and `evaluate`.

    `state` is a nested dictionary of tensors, numbers, strings and lists that belongs to the method (a saved
    rewind point, a temperature); it is checkpointed with the modules.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]]
    paper: ClassVar[str] = ""
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    tiny: ClassVar[dict[str, Any]] = {}
    """Config fields that make a run small enough for a check that takes seconds."""
    tiny_inputs: ClassVar[dict[str, Any]] = {}
    """Inputs of such a run, where the method has any."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config
        self.state: dict[str, Any] = {}

    @abstractmethod
    def train(self, context: "Context") -> nn.ModuleDict:
        """Produce the trained modules. Called again after an interruption, it continues."""

    @abstractmethod
    def rebuild(self, context: "Context") -> nn.ModuleDict:
        """The modules of a trained run without their weights, which are loaded into them afterwards."""

    @abstractmethod
    def variants(self, modules: nn.ModuleDict, context: "Context") -> list[Variant]:
        """The networks on offer; `context.spec` and `context.data` are those of the training run."""

    def variant_on_demand(self, name: str, modules: nn.ModuleDict, context: "Context") -> Variant | None:
        """A network that `variants` does not list, by name (a capacity that was never trained); None: there is none.

        `context.data` are the run's data with images, so that batch norm can be recalibrated.
        """
        return None

    def evaluate(self, modules: nn.ModuleDict, context: "Context", split: str = "test") -> "list[Score]":
        """Scores of the variants on a split of `context.data`."""
        return self.measure(self.variants(modules, context), context, split)

    def measure(self, variants: list[Variant], context: "Context", split: str) -> "list[Score]":
        """Scores of these variants on a split, which may be of other data than they were trained on.

        Default: the task's protocol. A method that composes its variants (a cascade) adds figures of its own.
        """
        from subnetbench.harness.evaluation.protocols import evaluate_variants

        return evaluate_variants(variants, context, split, pairs=self.pairs)

    def pairs(self, variants: list[Variant]) -> list[tuple[Variant, Variant]]:
        """Which (query variant, gallery variant) pairs a retrieval evaluation tests; default: each with itself."""
        return [(variant, variant) for variant in variants]

    def budget(self, data: TaskData) -> str:
        """What a run may spend, in words; runs of different budgets are never compared silently."""
        return f"{self.config.epochs} epochs x {len(data.train)} images"

    @classmethod
    def default_inputs(cls, config: Any) -> dict[str, Any]:
        """The runs this method starts from unless told otherwise, e.g. `{"teacher": {"method": "triplet"}}`.

        A role may name a list of runs.
        """
        return {}


class TrainableMethod(Method[ConfigT]):
    """A method that trains by gradient steps. The loop calls the hooks in this order:

    build -> for each stage: start_stage -> optimizers -> for each epoch: on_epoch_start -> plan_epoch ->
    for each step: make_batch, training_step -> validate -> (end of stage: best weights back) -> finish.

    All hooks run on all processes and must do the same there; draw random numbers only from `context` or `step`.
    """

    @abstractmethod
    def build(self, context: "Context") -> nn.ModuleDict:
        """All modules by role (`network`, `loss`, ...), with fresh weights from the `init` stream."""

    def rebuild(self, context: "Context") -> nn.ModuleDict:
        return self.build(context)

    def stages(self, context: "Context") -> list[Stage]:
        """The stages in order; default: one, of `config.epochs`."""
        return [Stage("train", self.config.epochs)]

    def start_stage(self, modules: nn.ModuleDict, stage: Stage, context: "Context") -> None:
        """Runs once before a stage (transitions, rewinding, pruning); its effects are checkpointed."""

    @abstractmethod
    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: "Context") -> dict[str, Optimization]:
        """The optimizers of a stage by name; parameters that none holds are not trained."""

    def on_epoch_start(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: "Context") -> None:
        """Runs before each epoch of a stage (temperatures, rewind points)."""

    def plan_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: "Context") -> Iterable[np.ndarray]:
        """The global batches of an epoch as arrays of sample indices; default: a random permutation, all kept."""
        order = numpy_generator(context.seed, "order", stage.name, epoch).permutation(len(context.data.train))
        size = self.config.batch_size
        return [order[start : start + size] for start in range(0, len(order), size)]

    def make_batch(self, indices: np.ndarray, stage: Stage, epoch: int, context: "Context") -> "Batch":
        """What a forward pass gets for these training samples; augmentation happens here."""
        from subnetbench.harness.training.step import Batch

        images = self.augment(indices, stage, epoch, context)
        return Batch(indices=indices, images=images, labels=context.train_labels[torch.from_numpy(indices)])

    def augment(self, indices: np.ndarray, stage: Stage, epoch: int, context: "Context") -> Tensor:
        """Training images for these samples; default: no augmentation."""
        return self.preprocessing(context)(context.data.train.images, indices, context.device)

    def preprocessing(self, context: "Context") -> Preprocessing:
        """The evaluation view of an image; default: the data set's own size and statistics."""
        data = context.data
        return Preprocessing(size=data.image_size or 224, mean=data.mean, std=data.std)

    def training_step(self, modules: nn.ModuleDict, step: "Step") -> None:
        """One step; default: one loss, one backward pass, every optimizer once."""
        step.backward(lambda batch: self.loss(modules, batch, step))
        step.update()

    def loss(self, modules: nn.ModuleDict, batch: "Batch", step: "Step") -> dict[str, Tensor]:
        """Named scalars, the mean over the batch's samples; `loss` is differentiated, the others are logged."""
        raise TypeError(f"{type(self).__name__} must define `loss` or `training_step`")

    def validate(self, modules: nn.ModuleDict, stage: Stage, context: "Context") -> dict[str, float]:
        """Metrics on the validation split; the task's primary metric selects the best weights."""
        from subnetbench.harness.evaluation.protocols import validation_metrics

        return validation_metrics(self.variants(modules, context), context)

    def finish(self, modules: nn.ModuleDict, context: "Context") -> None:
        """Runs once after the last stage (batch-norm recalibration); its effects are saved."""

    def train(self, context: "Context") -> nn.ModuleDict:
        from subnetbench.harness.training.loop import TrainingLoop

        return TrainingLoop(self, context).run()
