"""Two towers, one of images and one of texts, trained on captions with CLIP's loss: text-to-image search.

The towers are small and learned from scratch, or pretrained ones: any backbone for images, a packaged sentence encoder
for texts, or both towers of a CLIP checkpoint from a local folder, as they are (`epochs: 0`) or trained further.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from subnetbench.harness.method import (
    Batch,
    Context,
    DataError,
    LogUniform,
    MethodConfig,
    Optimization,
    Preprocessing,
    Stage,
    Step,
    TrainableMethod,
    UserError,
    UserValues,
    Variant,
    digest_of,
    operating_point,
    read_file,
    register_method,
    sample_uniforms,
    stream_key,
    weights_digest,
)
from subnetbench.methods.parts.bases.embedder import OptimizerName, Schedule, make_optimizer
from subnetbench.methods.parts.networks.feature_maps import pretrained_pixel_statistics
from subnetbench.methods.parts.networks.packaged_weights import published_weight_files
from subnetbench.methods.parts.networks.text_towers import (
    MAX_PIECES,
    PAD,
    BagOfPieces,
    CosineScale,
    MiniLM,
    hashed_pieces,
    tokenise,
)
from subnetbench.methods.parts.optim.schedules import make_schedule
from subnetbench.methods.parts.text_image.base import TINY_VIT
from subnetbench.methods.parts.text_image.clip_student import ClipStudent, ImageFeatures, clip_student
from subnetbench.methods.parts.text_image.clip_towers import Clip, clip_fields, load_open_clip, load_transformers_clip
from subnetbench.methods.parts.text_image.encoders import (
    PROMPT,
    PUBLISHED_PROMPT,
    ClipPreprocessing,
    TextEncoder,
    fill_prompt,
    pad,
)
from subnetbench.methods.parts.views.drawing import CROPS_AND_FLIPS, coupled_views, draw_views
from subnetbench.methods.parts.vit.model import PlainViT, ViTShape


@register_method("two_tower")
class TwoTower(TrainableMethod["TwoTower.Config"]):
    """Radford et al. 2021 (CLIP), small: matching images and texts attract, all others of the batch repel.

    Images of a batch that share a caption are all right answers to it. The packaged text tower stays frozen under a
    learned projection; so does the image backbone with `freeze_image` (Zhai et al. 2022, LiT), and then features are
    computed once and cached. With `image: clip` both towers come from a checkpoint in a local folder; `preset: paper`
    glues the prompt to the caption, as the published cascades do.
    """

    tasks = ("text_image",)
    paper = "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020"
    tiny = TINY_VIT

    class Config(MethodConfig):
        image: Annotated[
            str,
            Field(description="image tower: vit (from scratch), clip (from clip_path), or any backbone"),
            operating_point,
        ] = "vit"
        pretrained: Annotated[bool, Field(description="start from the published weights of the backbone")] = False
        freeze_image: Annotated[bool, Field(description="train only a projection on the image backbone")] = False
        image_size: Annotated[
            int | None, Field(ge=8, description="side in pixels [default: the data set's]"), operating_point
        ] = None
        patch_size: Annotated[int, Field(ge=1, description="of vit, in pixels")] = 8
        width: Annotated[int, Field(ge=4, description="of vit"), operating_point] = 128
        layers: Annotated[int, Field(ge=1, description="of vit"), operating_point] = 6
        heads: Annotated[int, Field(ge=1, description="of each layer of vit"), operating_point] = 4
        text: Annotated[
            Literal["words", "minilm"],
            Field(description="text tower: hashed words from scratch, or the packaged sentence encoder, frozen"),
        ] = "words"
        dim: Annotated[int, Field(ge=2, description="embedding size of both towers")] = 128
        clip_path: Annotated[
            str | None, Field(description="folder (or open_clip weights file) of image: clip"), read_file
        ] = None
        clip_library: Annotated[
            Literal["transformers", "open_clip"], Field(description="which library reads clip_path")
        ] = "transformers"
        clip_architecture: Annotated[
            str | None, Field(description="open_clip's name for a file of weights; OpenAI's end in -quickgelu")
        ] = None
        prompt: Annotated[
            str | None, Field(description="template with one {} for a caption [default: none; clip: a photo of {}]")
        ] = None
        temperature: Annotated[
            float, Field(gt=0, description="first divisor of cosines, learned"), LogUniform(0.02, 0.5)
        ] = 0.07
        augment: Annotated[Literal["none", "crop"], Field(description="crop: random resized crops and flips")] = "crop"
        crop_area: Annotated[float, Field(gt=0, le=1, description="smallest share of the image in a crop")] = 0.5
        flip: Annotated[float, Field(ge=0, le=1, description="chance of a horizontal flip")] = 0.5
        optimizer: OptimizerName = "adamw"
        lr: Annotated[float, Field(gt=0, description="peak learning rate"), LogUniform(1e-4, 1e-2)] = 1e-3
        weight_decay: Annotated[float, Field(ge=0, description="weight decay"), LogUniform(1e-4, 1.0)] = 0.05
        schedule: Schedule = "cosine"

        def installed_files(self) -> Mapping[str, Path]:
            text = MiniLM.folder() if self.text == "minilm" and self.image != "clip" else None
            found = {} if text is None else {"minilm": text / "model"}
            return {**found, **published_weight_files(self.image)} if self.pretrained else found

        def budget(self, epochs: int, images: int) -> str:
            imported = ": imported" if self.clip_path and not epochs else ""
            return f"{super().budget(epochs, images)}{imported}"

        def network_name(self) -> str:
            return self.clip_architecture or Path(self.clip_path).stem if self.clip_path else self.image

        @model_validator(mode="after")
        def _consistent(self) -> Self:
            if (self.image == "clip") != (self.clip_path is not None):
                raise ValueError("clip_path: belongs to image: clip, which needs it")
            if self.freeze_image and self.augment != "none":
                raise ValueError("augment: a frozen backbone is trained on cached features, so it needs none")
            if self.image in ("vit", "clip") and (self.pretrained or self.freeze_image):
                raise ValueError(f"image: {self.image} has no backbone to pretrain or freeze")
            if self.image == "vit" and self.width % self.heads:
                raise ValueError(f"heads: {self.heads} do not divide the width {self.width}")
            return self

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._clip: Clip | None = None
        self._minilm: MiniLM | None = None
        self._image_features: Tensor | None = None
        self._text_features: Tensor | None = None
        self._texts: list[str] = []

    def needs(self) -> tuple[str, ...]:
        return super().needs() if self.config.epochs else ()

    @property
    def prompt(self) -> str:
        """The template that captions are put into, with one `{}`."""
        if self.config.prompt is not None:
            return self.config.prompt
        if self.config.image == "clip":
            return PUBLISHED_PROMPT if self.config.preset == "paper" else PROMPT
        return "{}"

    @classmethod
    def import_config(cls, path: Path) -> UserValues:
        """A CLIP model as it is: a folder that one of the two libraries wrote, or OpenAI's weights as a state dictionary."""
        return {"image": "clip", "epochs": 0, "clip_path": str(path), **clip_fields(path)}

    def preprocessing(self, context: Context) -> Preprocessing:
        config, data = self.config, context.metadata
        if config.image == "clip":
            return self._load_clip(context).image.preprocessing
        size = config.image_size or data.image_size or 224
        mean, std = pretrained_pixel_statistics(config.image) if config.pretrained else (data.mean, data.std)
        # Photographs of any shape are cropped as CLIP does it.
        kind = ClipPreprocessing if data.image_size is None else Preprocessing
        return kind(size=size, mean=mean, std=std)

    def build(self, context: Context) -> nn.ModuleDict:
        config = self.config
        if config.image == "clip":
            clip = self._load_clip(context)
            scale = CosineScale(clip.logit_scale)
            return nn.ModuleDict({"image": clip.image.tower, "text": nn.Identity(), "scale": scale})
        if config.text == "minilm" and self._minilm is None:
            self._minilm = MiniLM(context.device)
        text = nn.Linear(MiniLM.WIDTH, config.dim) if config.text == "minilm" else BagOfPieces(config.dim)
        scale = CosineScale(-float(np.log(config.temperature)))
        return nn.ModuleDict({"image": self._image_tower(context), "text": text, "scale": scale})

    def _image_tower(self, context: Context) -> nn.Module:
        config, size = self.config, self.preprocessing(context).size
        if config.image != "vit":
            mode: Literal["frozen", "trained"] = "frozen" if config.freeze_image else "trained"
            return clip_student(
                config.image, embedding=config.dim, image_size=size, pretrained=config.pretrained, mode=mode
            )
        if context.metadata.channels != 3:
            raise UserError("takes images of 3 channels", field="image", value=config.image)
        return PlainViT(
            ViTShape(
                image_size=size,
                patch_size=config.patch_size,
                width=config.width,
                head_width=config.width // config.heads,
                heads=(config.heads,) * config.layers,
                neurons=(4 * config.width,) * config.layers,
                embedding=config.dim,
            )
        )

    def _load_clip(self, context: Context) -> Clip:
        if self._clip is None:
            path, config = Path(str(self.config.clip_path)).expanduser(), self.config
            if config.clip_library == "transformers":
                self._clip = load_transformers_clip(path, template=self.prompt, device=context.device)
            else:
                self._clip = load_open_clip(path, config.clip_architecture, template=self.prompt, device=context.device)
        return self._clip

    def optimizers(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> dict[str, Optimization]:
        config = self.config
        trained = [p for p in modules.parameters() if p.requires_grad]
        # Vectors (biases, norms, the scale) are not pulled towards 0.
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "lr": config.lr, "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "lr": config.lr, "weight_decay": 0.0},
        ]
        return {"weights": Optimization(make_optimizer(config.optimizer, groups), make_schedule(config.schedule))}

    def enter_stage(self, modules: nn.ModuleDict, stage: Stage, context: Context) -> None:
        train = context.data.train
        if not stage.epochs:
            return
        if train.captions is None or not all(train.captions):
            raise DataError("every training image needs a caption")
        self._texts = sorted({caption for own in train.captions for caption in own})
        if self.config.freeze_image:
            front = ImageFeatures(cast(ClipStudent, modules["image"])).eval()
            self._image_features = context.evaluator.cached_outputs(front, self.preprocessing(context), train)
        if not isinstance(modules["text"], BagOfPieces):
            self._text_features = context.evaluator.cached_rows(*self._frozen_texts(context))

    def plan_epoch(self, modules: nn.ModuleDict, stage: Stage, epoch: int, context: Context) -> Iterable[np.ndarray]:
        order = context.numpy_generator("order", stage.name, epoch).permutation(len(context.data.train))
        size = self.config.batch_size
        # All ranks hold equally many rows of a batch, and a last short one would have too few wrong answers.
        whole = max(len(order) // size, 1)
        equal = len(order[:size]) // context.world.size * context.world.size
        return [order[start : start + equal] for start in range(0, whole * size, size)]

    def _frozen_texts(self, context: Context) -> tuple[tuple[str, ...], Callable[[], Tensor]]:
        """What the features of all training captions depend on, and how they are computed."""
        if self._clip is not None:
            encoder = self._clip.text
        else:
            encoder = self._text_encoder(nn.Identity(), context)

        def compute() -> Tensor:
            parts = [encoder.embed(self._texts[i : i + 256]).clone() for i in range(0, len(self._texts), 256)]
            return torch.cat(parts).to(context.device)

        return (encoder.identity, *self._texts), compute

    def make_batch(self, indices: np.ndarray, stage: Stage, epoch: int, context: Context) -> Batch:
        rows = torch.from_numpy(indices).to(context.device)
        captions = cast(tuple[tuple[str, ...], ...], context.data.train.captions)
        chance = sample_uniforms(stream_key(context.seed, "augmentation", "caption", stage.name, epoch), indices, 1)
        chosen = [captions[i][int(u * len(captions[i]))] for i, u in zip(indices, chance[:, 0], strict=True)]
        numbers = torch.tensor([bisect_left(self._texts, text) for text in chosen], device=context.device)
        if self._text_features is None:
            pieces = pad([hashed_pieces(fill_prompt(self.prompt, text)) for text in chosen], PAD)
            texts = pieces.to(context.device)
        else:
            texts = self._text_features[numbers]
        if self._image_features is None:
            images = self.augment(indices, stage, epoch, context)
        else:
            images = self._image_features[rows]
        return Batch(indices=indices, images=images, labels=numbers, extra={"text": texts})

    def augment(self, indices: np.ndarray, stage: Stage, epoch: int, context: Context) -> Tensor:
        config = self.config
        if config.augment == "none":
            return super().augment(indices, stage, epoch, context)
        options = replace(CROPS_AND_FLIPS, area=(config.crop_area, 1.0), flip=config.flip)
        images, roles = context.data.train.images, {"view": self.preprocessing(context)}
        draws = draw_views(options, indices, 1, len(images), seed=context.seed, counters=(stage.name, epoch))
        return coupled_views(images, indices, draws, roles, context.device)["view"].squeeze(1)

    def training_step(self, modules: nn.ModuleDict, step: Step) -> None:
        step.backward(lambda batch: self.loss(modules, batch, step), reduction="gathered")
        step.update()

    def loss(self, modules: nn.ModuleDict, batch: Batch, step: Step) -> dict[str, Tensor]:
        tower: Any = modules["image"]
        own = tower(batch.images) if self._image_features is None else tower.head(batch.images)
        images = step.gather(F.normalize(own, dim=1))
        texts = step.gather(F.normalize(modules["text"](batch.extra["text"]), dim=1))
        captions = step.world.gather_rows(batch.labels)
        logits = modules["scale"](images @ texts.T)
        same = (captions[:, None] == captions[None, :]).to(logits.dtype)
        right = same / same.sum(dim=1, keepdim=True)
        return {"loss": (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2}

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        text = self._clip.text if self._clip is not None else self._text_encoder(modules["text"], context)
        scale = cast(CosineScale, modules["scale"])
        return [
            Variant(
                "dense",
                lambda: modules["image"].eval(),
                self.preprocessing(context),
                space=context.spec.run_id,
                capacity=1.0,
                text_encoder=text,
                details={"logit_scale": scale.logarithm.item()},
            )
        ]

    def _text_encoder(self, trained: nn.Module, context: Context) -> TextEncoder:
        """Texts to embeddings: the trained part behind the frozen one, where there is one."""
        encoder = partial(TextEncoder, template=self.prompt, device=context.device)
        digest = weights_digest(trained)
        if self._minilm is None:
            return encoder("words", trained, tokenise, context=MAX_PIECES, pad_token=PAD, digest=digest)
        frozen = self._minilm
        return encoder(
            "minilm",
            lambda ids: trained(frozen(ids)),
            frozen.tokenise,
            context=MiniLM.CONTEXT,
            pad_token=frozen.pad_token,
            digest=digest_of(digest, frozen.digest),
        )
