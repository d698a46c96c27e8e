"""CLIP image and text encoders from local folders, read by transformers or open_clip. Nothing is downloaded."""

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from subnetbench.harness.method import DataError, UserError, UserValues, digest_of, read_weights, weights_digest
from subnetbench.methods.parts.text_image.encoders import (
    CLIP_MEAN,
    CLIP_STD,
    PROMPT,
    ClipPreprocessing,
    ImageEncoder,
    TextEncoder,
)
from subnetbench.methods.parts.vit.conversion import image_features, plain_vit

# what the libraries raise for folders and files that are not what they should be
_UNREADABLE = (OSError, ValueError, RuntimeError, TypeError, LookupError, AssertionError, pickle.UnpicklingError)


class Clip(NamedTuple):
    """The two encoders of a CLIP model, and the logarithm of the factor on its cosines."""

    image: ImageEncoder
    text: TextEncoder
    logit_scale: float


class _LibraryTower(nn.Module):
    """The image tower of a library model that is no plain ViT, as it is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return image_features(self.model, images)


def image_tower(model: nn.Module) -> nn.Module:
    """The image tower of a CLIP model: a `PlainViT` where it is one, so that it can be masked and pruned."""
    try:
        return plain_vit(model)
    except UserError:
        return _LibraryTower(model)


def clip_fields(path: Path) -> UserValues:
    """Which library reads a CLIP model, and of a file of weights open_clip's name of its architecture.

    Only OpenAI's own files say that their activation is QuickGELU: they hold their sizes beside the weights.

    Raises:
        UserError: A file that cannot be read without running code.
    """
    if path.is_dir():
        return {"clip_library": "transformers" if (path / "config.json").is_file() else "open_clip"}
    tensors = read_weights(path).tensors
    named = _openai_architecture(tensors) if {"input_resolution", "vocab_size"} <= set(tensors) else None
    return {"clip_library": "open_clip", **({"clip_architecture": named} if named else {})}


def _openai_architecture(tensors: Mapping[str, Tensor]) -> str | None:
    """open_clip's name of the architecture that weights with OpenAI's names are of."""
    import open_clip

    patch, projection = tensors.get("visual.conv1.weight"), tensors.get("text_projection")
    if patch is None or projection is None or patch.ndim != 4:
        return None
    side = int(tensors["input_resolution"])
    layers = {name.split(".")[3] for name in tensors if name.startswith("visual.transformer.resblocks.")}
    sizes = (projection.shape[1], side, len(patch), patch.shape[-1], len(layers))
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        of = config["vision_cfg"]
        known = (config["embed_dim"], *(of.get(key) for key in ("image_size", "width", "patch_size", "layers")))
        if name.endswith("-quickgelu") and known == sizes:
            return str(name)
    return None


def load_transformers_clip(
    folder: Path, *, template: str = PROMPT, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Clip:
    """A CLIP checkpoint in the layout of the transformers library (config, weights, tokeniser files)."""
    from transformers import AutoTokenizer, CLIPModel

    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} holds no CLIP model of transformers: config.json is missing")
    try:
        model = CLIPModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
        tokeniser = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except _UNREADABLE as error:
        raise DataError(f"{folder} cannot be read by transformers: {error}") from error
    return transformers_clip(
        model,
        tokeniser,
        name=folder.name,
        preprocessing=_transformers_preprocessing(folder, model),
        template=template,
        dtype=dtype,
        device=device,
    )


def transformers_clip(
    model: Any,
    tokeniser: Any,
    *,
    name: str,
    preprocessing: ClipPreprocessing,
    template: str = PROMPT,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Clip:
    """The encoders of a `CLIPModel` and its tokeniser."""
    image = ImageEncoder(name, image_tower(model), preprocessing, dtype=dtype, device=device)
    config = model.config.text_config
    settings = {key: value for key, value in config.to_dict().items() if key not in _VOLATILE}
    vocabulary = tokeniser.backend_tokenizer.to_str()
    text = TextEncoder(
        name,
        transformers_text_tower(model.to(device)),
        lambda texts: tokeniser(list(texts), truncation=False, padding=False)["input_ids"],
        context=config.max_position_embeddings,
        pad_token=tokeniser.eos_token_id,
        digest=digest_of(weights_digest(model, ["text"]), sorted(settings.items(), key=str), vocabulary),
        template=template,
        device=device,
    )
    return Clip(image, text, model.logit_scale.item())


def transformers_text_tower(model: Any) -> Callable[[Tensor], Tensor]:
    """Padded token ids (n, length) to projected text embeddings (n, d), as the library itself computes them.

    A text tower assembled by hand from the library's modules loses its causal mask without an error.
    """

    def tower(ids: Tensor) -> Tensor:
        out = model.get_text_features(input_ids=ids)
        # a tensor or an output object, depending on the release
        return out if isinstance(out, Tensor) else out.pooler_output

    return tower


_VOLATILE = {"transformers_version", "_name_or_path", "dtype", "torch_dtype"}


def _transformers_preprocessing(folder: Path, model: Any) -> ClipPreprocessing:
    file = folder / "preprocessor_config.json"
    values = json.loads(file.read_text()) if file.is_file() else {}
    return ClipPreprocessing(
        size=model.config.vision_config.image_size,
        mean=tuple(values.get("image_mean", CLIP_MEAN)),
        std=tuple(values.get("image_std", CLIP_STD)),
    )


def load_open_clip(
    path: Path,
    architecture: str | None = None,
    *,
    template: str = PROMPT,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Clip:
    """A folder saved by open_clip, or a file of weights for one of its architectures.

    OpenAI's weights need the names that end in `-quickgelu`; with the others embeddings are subtly wrong.
    """
    import open_clip

    if path.is_dir():
        model_name, weights = f"local-dir:{path.resolve()}", None
    elif path.is_file() and architecture in open_clip.list_models():
        model_name, weights = str(architecture), str(path)
    elif path.is_file():
        raise UserError(
            "is needed with a file of weights",
            field="architecture",
            value=architecture,
            allowed="a name of open_clip.list_models()",
        )
    else:
        raise DataError(f"{path} does not exist: give a folder saved by open_clip or a file of weights")
    try:
        # without the last two settings, missing weights would be made up, or looked for on the network
        model = open_clip.create_model(
            model_name, pretrained=weights, weights_only=True, require_pretrained=True, pretrained_text=False
        ).eval()
        tokeniser = open_clip.get_tokenizer(model_name)
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read by open_clip: {error}") from error
    return open_clip_clip(model, tokeniser, name=path.name, template=template, dtype=dtype, device=device)


def open_clip_clip(
    model: Any,
    tokeniser: Any,
    *,
    name: str,
    template: str = PROMPT,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Clip:
    """The encoders of an open_clip model and its byte-pair tokeniser."""
    import open_clip

    if not hasattr(tokeniser, "sot_token_id"):
        raise UserError("only the byte-pair tokeniser is supported", field="tokeniser", value=type(tokeniser).__name__)
    view = open_clip.get_model_preprocess_cfg(model)
    size = view["size"]
    preprocessing = ClipPreprocessing(
        size=size if isinstance(size, int) else size[0], mean=tuple(view["mean"]), std=tuple(view["std"])
    )
    image = ImageEncoder(name, image_tower(model), preprocessing, dtype=dtype, device=device)
    text_names = [key for key in model.state_dict() if not key.startswith(("visual.", "logit_"))]
    architecture = [repr(child) for key, child in model.named_children() if key != "visual"]
    model = model.to(device)
    text = TextEncoder(
        name,
        model.encode_text,
        lambda texts: open_clip_ids(tokeniser, texts),
        context=model.context_length,
        pad_token=0,
        digest=digest_of(weights_digest(model, text_names), architecture, sorted(tokeniser.encoder.items())),
        template=template,
        pad_fully=True,
        device=device,
    )
    return Clip(image, text, model.logit_scale.item())


def open_clip_ids(tokeniser: Any, texts: Any) -> list[list[int]]:
    """Ids of open_clip's byte-pair tokeniser with begin and end tokens, of any length."""
    return [[tokeniser.sot_token_id, *tokeniser.encode(text), tokeniser.eot_token_id] for text in texts]
