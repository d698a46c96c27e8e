"""What a method is: its networks, how they are trained or calibrated, and the variants they offer.

A method is one file in `methods/` with one subclass, registered by `register_method`. It knows its modules, its
losses and its variants. It knows no launcher, no device list and no process group: the loop passes it a `Step`
whose gradients are already averaged over processes and micro-batches.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.core.batches import batch_slices
from subnetbench.harness.core.config import NO_TRAINING, MethodConfig, UserValues
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.rng import numpy_generator
from subnetbench.harness.core.tasks import Task
from subnetbench.harness.data.preprocessing import Preprocessing
from subnetbench.harness.data.splits import TaskData
from subnetbench.harness.evaluation.protocols import evaluate_variants, validation_metrics
from subnetbench.harness.evaluation.variant import Variant
from subnetbench.harness.method.context import Context
from subnetbench.harness.method.stages import Optimization, Stage
from subnetbench.harness.method.starting import WeightsConfig
from subnetbench.harness.method.step import Batch, Step
from subnetbench.harness.method.weights import Weights, read_weights
from subnetbench.harness.records import Score

ConfigT = TypeVar("ConfigT", bound=MethodConfig)
# Open: each method keeps what it wants, of the types that a state file knows.
MethodState = dict[str, Any]


class Method(ABC, Generic[ConfigT]):
    """The interface of all methods: `train` and `evaluate`.

    `state` is a nested dictionary of tensors, numbers, strings and lists that belongs to the method (a saved
    rewind point, a temperature); it is checkpointed with the modules.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]]
    paper: ClassVar[str] = ""
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    tiny: ClassVar[UserValues] = {}
    """Config fields that make a run small enough for a check that takes seconds."""
    tiny_inputs: ClassVar[UserValues] = {}
    """Inputs of such a run, where the method has any."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config
        self.state: MethodState = {}

    @abstractmethod
    def rebuild(self, context: Context) -> nn.ModuleDict:
        """The modules of a trained run without their weights, which are loaded into them afterwards.

        Only `context.metadata` is known of the data here, as in `variants`.
        """

    def calibrate(self, modules: nn.ModuleDict, context: Context) -> None:
        """What a method learns from data without gradient steps; default: nothing.

        `modules` are as `rebuild` makes them. Methods that train by gradient steps are a `TrainableMethod` instead.
        """

    @abstractmethod
    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        """The networks on offer; `context.spec` and `context.metadata` are those of the training run."""

    def variant_on_demand(self, name: str, modules: nn.ModuleDict, context: Context) -> Variant | None:
        """A network that `variants` does not list, by name (a capacity that was never trained); None: there is none.

        `context.data` are the run's data with images, so that batch norm can be recalibrated.
        """
        return None

    def evaluate(self, modules: nn.ModuleDict, context: Context, split: str = "test") -> list[Score]:
        """Scores of the variants on a split of `context.data`."""
        return self.measure(self.variants(modules, context), context, split)

    def measure(self, variants: list[Variant], context: Context, split: str) -> list[Score]:
        """Scores of these variants on a split, which may be of other data than they were trained on.

        Default: the task's protocol. A method that composes its variants (a cascade) adds metrics of its own.
        """
        return evaluate_variants(variants, context.evaluator, split, pairs=self.pairs)

    def pairs(self, variants: list[Variant]) -> list[tuple[Variant, Variant]]:
        """Which (query variant, gallery variant) pairs a retrieval evaluation tests; default: each with itself."""
        return [(variant, variant) for variant in variants]

    def needs(self) -> tuple[str, ...]:
        """The splits without whose images this method cannot be trained, of `train` and `validation`.

        Default: the training split. A method that only composes or evaluates what it is given says `()`, and then runs
        on data that have nothing but a test.
        """
        imported = isinstance(self.config, WeightsConfig) and self.config.imported
        return () if imported else ("train",)

    def budget(self, data: TaskData) -> str:
        """What a run may spend, in words; runs of different budgets are never compared in silence.

        What it did spend is counted, and stands beside it in leaderboards.
        """
        config = self.config
        return config.budget(0, 0) if isinstance(config, WeightsConfig) and config.imported else NO_TRAINING

    @classmethod
    def import_config(cls, path: Path) -> UserValues:
        """Config of the run that a file of another program is, without the fields that the file leaves open.

        Raises:
            UserError: The method takes no such files, or this one cannot be read.
        """
        if not issubclass(cls.Config, WeightsConfig) or cls.load_weights is Method.load_weights:
            raise UserError("takes no weights of other programs", field="method", value=cls.name)
        return {"weights": str(path), "epochs": 0, **cls.describe_weights(read_weights(path))}

    @classmethod
    def describe_weights(cls, weights: Weights) -> UserValues:
        """Config fields that a file of weights decides (its network, its pixels); default: none."""
        return {}

    def load_weights(self, modules: nn.ModuleDict, weights: Weights, context: Context) -> None:
        """Put a file of another program into modules as `rebuild` makes them.

        Where `config.imported` the file must cover all that the run offers; else it is what training starts from.

        Raises:
            UserError: The file does not fit; see `fill`.
        """
        raise UserError("takes no weights of other programs", field="config.weights", value=str(weights.path))

    @classmethod
    def default_inputs(cls, config: Any) -> UserValues:
        """The runs this method starts from unless others are given, e.g. `{"teacher": {"method": "triplet"}}`.

        A role may name a list of runs.
        """
        return {}


class TrainableMethod(Method[ConfigT]):
    """A method that trains by gradient steps. The loop calls the hooks in this order:

    build -> for each stage: start_stage, enter_stage, optimizers -> for each epoch: start_epoch, enter_epoch,
    plan_epoch -> for each step: make_batch, micro_batches, training_step -> validate -> (end of stage: best weights
    back) -> finish.

    `start_stage` and `start_epoch` run once; what they change is in the checkpoint. `enter_stage` and `enter_epoch`
    run again when a run resumes inside the stage or epoch: they set what the other hooks need beside the checkpoint
    (caches, subnetworks, frozen networks) as attributes of the method. `optimizers` and `plan_epoch` only return.

    All hooks run on all processes and must do the same there; draw random numbers only from `context` or `step`.
    """

    def budget(self, data: TaskData) -> str:
        return self.config.budget(self.config.epochs, len(data.train))

    @abstractmethod
    def build(self, context: Context) -> nn.ModuleDict:
        """All modules by role (`network`, `loss`, ...), with fresh weights from the `init` stream."""

    def rebuild(self, context: Context) -> nn.ModuleDict:
        return self.build(context)

    def stages(self, context: Context) -> list[Stage]:
        """The stages in order; default: one, of `config.epochs`."""
        return [Stage("train", self.config.epochs)]

    def start_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        """Runs once before a stage (transitions, rewinding, pruning); its effects are checkpointed."""

    def enter_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        """Runs when a stage begins and when a run resumes inside it: sets the stage's working state on `self`.

        `modules` and `state` are those that `start_stage` left, or those of the checkpoint. What is set here must
        follow from them, the config and the context alone, for it is not checkpointed. Outputs gathered over ranks
        (`context.evaluator`) may be computed here.
        """

    @abstractmethod
    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        """The optimizers of a stage by name; parameters that none holds are not trained."""

    def start_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> None:
        """Runs once before each epoch of a stage (temperatures, rewind points); its effects are checkpointed."""

    def enter_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> None:
        """Runs when an epoch begins and when a run resumes inside it, as `enter_stage` does for stages."""

    def plan_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> Iterable[np.ndarray]:
        """The global batches of an epoch as arrays of sample indices; default: a random permutation, all kept.

        No batch of one is left over: the last takes a sample from the one before it.
        """
        order = numpy_generator(context.seed, "order", stage.name, epoch).permutation(len(context.data.train))
        return [order[part] for part in batch_slices(len(order), self.config.batch_size)]

    def make_batch(self, indices: np.ndarray, stage: Stage, epoch: int, context: Context) -> Batch:
        """What a forward pass gets for these training samples; augmentation happens here."""
        images = self.augment(indices, stage, epoch, context)
        return Batch(indices=indices, images=images, labels=context.train_labels[torch.from_numpy(indices)])

    def micro_batches(self, batch: Batch, stage: Stage, epoch: int, context: Context) -> Sequence[Batch]:
        """The pieces of a rank's batch that pass through the network one by one; default: `config.micro_batch_size`.

        A sequence that renders its items when they are asked for keeps memory small.
        """
        return batch.pieces(self.config.micro_batch_size)

    def augment(self, indices: np.ndarray, stage: Stage, epoch: int, context: Context) -> Tensor:
        """Training images for these samples; default: no augmentation."""
        return self.preprocessing(context)(context.data.train.images, indices, context.device)

    def preprocessing(self, context: Context) -> Preprocessing:
        """The evaluation view of an image; default: the data set's own size and statistics."""
        data = context.metadata
        return Preprocessing(size=data.image_size or 224, mean=data.mean, std=data.std)

    def step_kind(self, stage: Stage, step: int, context: Context) -> str:
        """What a step draws that decides how much it computes (the widths of a slimmable network); default: nothing.

        Steps of one kind, and of equal shapes, spend the same, so few of them are counted.
        """
        return ""

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        """One step; default: one loss, one backward pass, every optimizer once."""
        step.backward(lambda batch: self.loss(modules, batch, step))
        step.update()

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Named scalars, the mean over the batch's samples; `loss` is differentiated, the others are logged."""
        raise TypeError(f"{type(self).__name__} must define `loss` or `training_step`")

    def validate(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, float]:
        """Metrics on the validation split; the task's primary metric selects the best weights."""
        return validation_metrics(self.variants(modules, context), context.evaluator)

    def finish(self, modules: nn.ModuleDict, context: Context) -> None:
        """Runs once after the last stage (batch-norm recalibration); its effects are saved."""
