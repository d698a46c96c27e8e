"""The contract: everything that a method or data set imports from subnetbench, built in or not.

>>> from subnetbench.harness.method import MethodConfig, Stage, TrainableMethod, Variant, register_method
"""

from typing import TYPE_CHECKING

from subnetbench.harness.core.lazy import lazy_exports

if TYPE_CHECKING:
    from subnetbench.harness.core.batches import batch_slices
    from subnetbench.harness.core.config import (
        Choice,
        Config,
        DatasetConfig,
        LogUniform,
        MethodConfig,
        Uniform,
        UserValues,
        operating_point,
        read_file,
    )
    from subnetbench.harness.core.errors import DataError, RunFailure, UserError, nearest, unknown
    from subnetbench.harness.core.hashing import digest_of
    from subnetbench.harness.core.rng import numpy_generator, sample_uniforms, stream_key, torch_generator
    from subnetbench.harness.core.tasks import Task
    from subnetbench.harness.core.uncounted import uncounted
    from subnetbench.harness.data.dataset import Dataset
    from subnetbench.harness.data.images import ImageFiles, Images, TensorImages
    from subnetbench.harness.data.metadata import DataMetadata
    from subnetbench.harness.data.preprocessing import Preprocessing, normalise
    from subnetbench.harness.data.registry import register_dataset
    from subnetbench.harness.data.splits import CaptionProtocol, GroundTruth, Split, TaskData
    from subnetbench.harness.evaluation.cache import weights_digest
    from subnetbench.harness.evaluation.classification import classification_metrics
    from subnetbench.harness.evaluation.cost import time_metrics
    from subnetbench.harness.evaluation.items import caption_items, image_items
    from subnetbench.harness.evaluation.macs import mac_metrics
    from subnetbench.harness.evaluation.packaged import load_packaged_weights, package_folder, packaged_weights_file
    from subnetbench.harness.evaluation.protocols import TIMING_SECONDS, evaluate_variants
    from subnetbench.harness.evaluation.relevance import Difficulty, revisited_truth
    from subnetbench.harness.evaluation.retrieval import split_metrics
    from subnetbench.harness.evaluation.search import Backend, score_blocks
    from subnetbench.harness.evaluation.variant import Variant
    from subnetbench.harness.method.base import Method, TrainableMethod
    from subnetbench.harness.method.context import Context, Input
    from subnetbench.harness.method.registry import register_method
    from subnetbench.harness.method.stages import Optimization, Progress, Schedule, Stage
    from subnetbench.harness.method.starting import WeightsConfig
    from subnetbench.harness.method.step import Batch, LossFunction, Step
    from subnetbench.harness.method.weights import Weights, fill, read_weights
    from subnetbench.harness.records import Score
    from subnetbench.harness.records.items import ItemSet, ItemValues

__all__ = [
    "TIMING_SECONDS",
    "Backend",
    "Batch",
    "CaptionProtocol",
    "Choice",
    "Config",
    "Context",
    "DataError",
    "DataMetadata",
    "Dataset",
    "DatasetConfig",
    "Difficulty",
    "GroundTruth",
    "ImageFiles",
    "Images",
    "Input",
    "ItemSet",
    "ItemValues",
    "LogUniform",
    "LossFunction",
    "Method",
    "MethodConfig",
    "Optimization",
    "Preprocessing",
    "Progress",
    "RunFailure",
    "Schedule",
    "Score",
    "Split",
    "Stage",
    "Step",
    "Task",
    "TaskData",
    "TensorImages",
    "TrainableMethod",
    "Uniform",
    "UserError",
    "UserValues",
    "Variant",
    "Weights",
    "WeightsConfig",
    "batch_slices",
    "caption_items",
    "classification_metrics",
    "digest_of",
    "evaluate_variants",
    "fill",
    "image_items",
    "load_packaged_weights",
    "mac_metrics",
    "nearest",
    "normalise",
    "numpy_generator",
    "operating_point",
    "package_folder",
    "packaged_weights_file",
    "read_file",
    "read_weights",
    "register_dataset",
    "register_method",
    "revisited_truth",
    "sample_uniforms",
    "score_blocks",
    "split_metrics",
    "stream_key",
    "time_metrics",
    "torch_generator",
    "uncounted",
    "unknown",
    "weights_digest",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(__name__, __all__)
