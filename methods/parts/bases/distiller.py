"""Config of distillation for retrieval, and micro-batches that are rendered one by one."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from subnetbench.harness.method import Batch, Choice, LogUniform, Uniform, UserError, operating_point
from subnetbench.methods.parts.bases.triplet import TripletConfig
from subnetbench.methods.parts.losses.distillation import LOSSES, check_options
from subnetbench.methods.parts.views.drawing import ViewOptions

Mode = Literal["ts_aug", "ts_reg", "sym"]
# `kd` compares the logits of two classifiers, which embedding networks do not have.
LossName = Literal[
    "raml",
    "raml_batch",
    "aml_regression",
    "aml_contrastive",
    "aml_contrastive_plus",
    "fitnet",
    "cc",
    "csd",
    "rop",
    "d3still",
    "darkrank",
    "rkd",
    "pkt",
]


class DistillationConfig(TripletConfig):
    """The options of the published command line, under the field's names, and those of its neighbours."""

    paper_defaults = {
        "network": "resnet50",
        "pretrained": True,
        "image_size": 224,
        "teacher_image_size": 448,
        "dim": 512,
        "freeze_batch_statistics": True,
        "epochs": 200,
        "batch_size": 8,
        "update_every": 25,
        "loss_reduction": "sum",
        "weight_decay": 1e-6,
        "lr": 1.4e-4,
        "views": 8,
        "resize_ratio": 8 / 7,
        "interpolation": "lanczos",
        "select": "last",
        "evaluate_every": 20,
    }

    searched_when = {
        "margin": {"mode": ("sym",)},
        "mining": {"mode": ("sym",)},
        "lam_ts": {"loss": ("raml",), "mode": ("ts_aug", "ts_reg")},
        "lam_ss": {"loss": ("raml",), "mode": ("ts_aug", "ts_reg")},
    }

    mode: Annotated[
        Mode,
        Field(
            description="ts_aug: random views that student and teacher share; ts_reg: one fixed view, teacher's "
            "features cached; sym: triplets, no teacher (how teachers and baselines are trained)"
        ),
        Choice(("ts_aug", "ts_reg")),
    ] = "ts_aug"
    image_size: Annotated[
        int | None,
        Field(ge=8, description="side that the student sees [default: half of the teacher's; sym: the data set's]"),
        operating_point,
    ] = None
    teacher_image_size: Annotated[
        int | None, Field(ge=8, description="side that the teacher sees [default: what it was trained with]")
    ] = None
    teacher_network: Annotated[
        str | None, Field(description="backbone of the teacher, unless inputs.teacher names a run [default: network]")
    ] = None
    teacher_variant: Annotated[
        str | None, Field(description="which variant of the teacher's run teaches [default: its first]")
    ] = None
    student_start: Annotated[
        Literal["network", "teacher"],
        Field(
            description="teacher: the student starts as a copy of the whole teacher, weights and embedding layer; its "
            "network and dim have to be the teacher's, and pretrained and pool mean nothing"
        ),
    ] = "network"
    loss: Annotated[
        LossName, Field(description="distillation loss; darkrank, rkd and pkt do not align the two spaces")
    ] = "raml"
    loss_weight: Annotated[float | None, Field(gt=0, description="factor on the loss [default: published]")] = None
    loss_options: Annotated[dict[str, float], Field(description="further options of the loss")] = {}
    loss_reduction: Annotated[
        Literal["mean", "sum"], Field(description="sum: over images and accumulated batches, undivided, as published")
    ] = "mean"
    lam_ts: Annotated[
        float, Field(ge=0, description="weight of student-teacher similarities in raml"), Uniform(0.6, 0.8)
    ] = 0.77
    lam_ss: Annotated[
        float, Field(ge=0, description="weight of student-student similarities in raml"), Uniform(0.6, 0.8)
    ] = 0.67
    views: Annotated[int, Field(ge=1, description="random views of each image (ts_aug)")] = 4
    view_bank: Annotated[
        int,
        Field(
            ge=0,
            description="draw only this many views of each image, so that the teacher's features of them are computed "
            "once and cached; a multiple of views; 0: new views in every epoch",
        ),
    ] = 0
    mixup_alpha: Annotated[
        float, Field(ge=0, description="views are mixed with weight Beta(alpha, alpha); 0: not mixed")
    ] = 0.2
    jitter: Annotated[
        tuple[float, float, float, float], Field(description="brightness, contrast, saturation, hue (ts_aug)")
    ] = (0.4, 0.4, 0.4, 0.1)
    whitening_init: Annotated[
        Literal["default", "pca", "supervised"],
        Field(description="how the whitening layer starts: at random, from principal axes, from pairs of a class"),
    ] = "default"
    update_every: Annotated[int, Field(ge=1, description="batches whose gradients make one step")] = 1
    momentum: Annotated[float, Field(ge=0, lt=1, description="of sgd")] = 0.9
    pool_lr_multiplier: Annotated[
        float, Field(gt=0, description="on the rate of learned pooling exponents (published: 10 or 100, but lost)")
    ] = 1.0
    resize_ratio: Annotated[
        float, Field(ge=1, le=2, description="shorter side before the centre crop of evaluation, over the crop")
    ] = 1.0
    interpolation: Annotated[
        Literal["bilinear", "bicubic", "lanczos"], Field(description="filter that resizes for evaluation")
    ] = "bilinear"
    select: Annotated[
        Literal["asymmetric", "symmetric", "last"],
        Field(description="which test on the validation classes chooses the epoch; last: none does"),
    ] = "asymmetric"
    lr: Annotated[float, Field(gt=0, description="peak learning rate"), LogUniform(1e-4, 1e-2)] = 1e-3

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            check_options(self.loss, self.loss_options)
        except UserError as error:
            raise ValueError(f"loss_options: {error}") from None
        if self.mode == "ts_aug" and self.loss == "raml" and self.views < 2 and (self.lam_ts or self.lam_ss):
            raise ValueError("views: the relational parts of raml compare two views of an image or more")
        if self.student_start == "teacher" and (self.mode == "sym" or self.whitening_init != "default"):
            field, value = ("mode", "sym") if self.mode == "sym" else ("whitening_init", self.whitening_init)
            raise ValueError(f"{field}: {value} does not go with a student that starts as a copy of its teacher")
        if self.view_bank % self.views:
            raise ValueError(f"view_bank: {self.view_bank} is no multiple of the {self.views} views")
        return self

    def all_loss_options(self) -> dict[str, Any]:
        """Arguments of `distillation_loss` beside its name and the embeddings; open, because each loss has its own."""
        options: dict[str, Any] = {"weight": self.loss_weight, **self.loss_options}
        if self.loss == "raml":
            relational = self.mode == "ts_aug"
            options |= {"lam_ts": self.lam_ts * relational, "lam_ss": self.lam_ss * relational}
            options["reduction"] = self.loss_reduction
        return options

    def view_options(self) -> ViewOptions:
        """From what the random views of student and teacher are drawn."""
        brightness, contrast, saturation, hue = self.jitter
        return ViewOptions(
            area=(self.crop_area, 1.0),
            flip=self.flip,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
            mixup_alpha=self.mixup_alpha,
        )

    @property
    def aligning(self) -> bool:
        """Whether the loss moves the student's embeddings to the teacher's."""
        return LOSSES[self.loss].aligning

    def without_remainder(self, plan: list[Any]) -> list[Any]:
        """The published code throws away the gradients of batches that do not fill a step; so does its preset."""
        if self.preset == "paper" and len(plan) > 1 and math.ceil(len(plan[-1]) / self.batch_size) < self.update_every:
            return plan[:-1]
        return plan


class RenderedInTurn(Sequence[Batch]):
    """Micro-batches of which only the indices are known at first, rendered when they are used.

    All views of an accumulated step together would take gigabytes. With `ahead` the next one is rendered by a thread
    meanwhile, which helps where images are decoded from files.
    """

    def __init__(self, pieces: Sequence[Batch], render: Callable[[Batch], Batch], *, ahead: bool) -> None:
        self._pieces, self._render, self._ahead = pieces, render, ahead

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: Any) -> Any:
        return self._render(self._pieces[index])

    def __iter__(self) -> Iterator[Batch]:
        if not self._ahead:
            yield from map(self._render, self._pieces)
            return
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self._render, self._pieces[0])
            for index in range(1, len(self._pieces) + 1):
                batch = waiting.result()
                if index < len(self._pieces):
                    waiting = pool.submit(self._render, self._pieces[index])
                yield batch
