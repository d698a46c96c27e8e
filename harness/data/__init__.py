"""The data vocabulary: images, splits, preprocessing, and what a data set declares.

>>> from subnetbench.harness.data import Dataset, DatasetConfig, Split, TaskData, register_dataset
"""

from typing import TYPE_CHECKING

from subnetbench.harness.core.lazy import lazy_exports

if TYPE_CHECKING:
    from subnetbench.harness.core.config import Config, DatasetConfig, OpenFields, operating_point, read_file
    from subnetbench.harness.core.errors import DataError, UserError, nearest, unknown
    from subnetbench.harness.core.hashing import digest_of
    from subnetbench.harness.core.protocols import (
        CAPTIONS_APART,
        EQUAL_CAPTIONS,
        NEAR_DUPLICATES,
        NOT_HELD_OUT,
        OFFICIAL,
        OWN_IMAGE,
        SEEN_CLASSES,
        protocols_of,
    )
    from subnetbench.harness.core.rng import numpy_generator, sample_uniforms, stream_key
    from subnetbench.harness.core.tasks import Task
    from subnetbench.harness.core.written import parse_json, read_written
    from subnetbench.harness.data.dataset import Dataset
    from subnetbench.harness.data.decoding import IMAGE_EXTENSIONS
    from subnetbench.harness.data.duplicates import near_pairs
    from subnetbench.harness.data.images import ImageFiles, Images, TensorImages
    from subnetbench.harness.data.metadata import DataMetadata
    from subnetbench.harness.data.preprocessing import Preprocessing, normalise
    from subnetbench.harness.data.registry import register_dataset
    from subnetbench.harness.data.splits import GroundTruth, Split, TaskData

__all__ = [
    "CAPTIONS_APART",
    "EQUAL_CAPTIONS",
    "IMAGE_EXTENSIONS",
    "NEAR_DUPLICATES",
    "NOT_HELD_OUT",
    "OFFICIAL",
    "OWN_IMAGE",
    "SEEN_CLASSES",
    "Config",
    "DataError",
    "DataMetadata",
    "Dataset",
    "DatasetConfig",
    "GroundTruth",
    "ImageFiles",
    "Images",
    "OpenFields",
    "Preprocessing",
    "Split",
    "Task",
    "TaskData",
    "TensorImages",
    "UserError",
    "digest_of",
    "near_pairs",
    "nearest",
    "normalise",
    "numpy_generator",
    "operating_point",
    "parse_json",
    "protocols_of",
    "read_file",
    "read_written",
    "register_dataset",
    "sample_uniforms",
    "stream_key",
    "unknown",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(__name__, __all__)
