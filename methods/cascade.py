"""Cascades for text-to-image search: a cheap encoder sees all images, expensive ones only its best candidates.

Hönig, Ackermann and Chi 2023. A cascade is a configuration over finished encoders, which are its inputs.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from torch import nn

from subnetbench.harness.method import (
    Backend,
    Context,
    Method,
    MethodConfig,
    Score,
    UserError,
    Variant,
    evaluate_variants,
    operating_point,
    register_method,
)
from subnetbench.methods.parts.text_image.base import TINY_VIT, DerivedEncoder
from subnetbench.methods.parts.text_image.cost import (
    cold_query_cost,
    depth_speedup,
    lifetime_cost,
    lifetime_speedup,
)
from subnetbench.methods.parts.text_image.measures import Collection, LevelCost


@register_method("cascade")
class CascadeMethod(Method["CascadeMethod.Config"]):
    """Level j hands its best m[j] images on to level j + 1, which encodes those that it has not seen before.

    Nothing is trained. Unless `m` is given, it is fixed on the validation split: the smallest share of the images with
    which recall at 10 stays within `max_loss` of the last level alone. Costs are those of encoding images, against the
    last level alone: over a workload that asks for every image once (as published), over one that keeps asking for a small
    part of them, and with the share that was assumed in print.
    """

    tasks = ("text_image",)
    paper = "Hoenig, Ackermann and Chi, Bi-Encoder Cascades for Efficient Image Search, arXiv 2303.15595"
    tiny = {"small_world_queries": 40, "timed_queries": 2}
    tiny_inputs = {
        "levels": [
            {
                "method": "clip_student",
                "config": {"network": "cnn8-8", "image_size": 16, "epochs": 1, "limit_steps": 2},
                "inputs": DerivedEncoder.tiny_inputs,
            },
            {"method": "two_tower", "config": {**TINY_VIT, "epochs": 1, "limit_steps": 2}},
        ]
    }

    class Config(MethodConfig):
        paper_defaults = {"m": (50,)}

        variants: Annotated[
            tuple[str, ...] | None, Field(description="which variant of each level's run [default: the first]")
        ] = None
        m: Annotated[
            tuple[int, ...] | None,
            Field(description="candidates that each level but the last hands on [default: by validation]"),
            operating_point,
        ] = None
        m_shares: Annotated[
            tuple[float, ...], Field(min_length=1, description="shares of the images that validation chooses from")
        ] = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
        narrowing: Annotated[
            float, Field(gt=0, le=1, description="each further level hands on this share of what it got")
        ] = 0.2
        max_loss: Annotated[
            float, Field(ge=0, lt=1, description="recall at 10 that validation may lose against the last level alone")
        ] = 0.01
        assumed_f: Annotated[
            float, Field(gt=0, le=1, description="share of images that later levels ever encode, as assumed in print")
        ] = 0.1
        small_world_queries: Annotated[int, Field(ge=1, description="queries of the small-world workload")] = 5000
        hot_share: Annotated[
            float, Field(gt=0, le=1, description="share of the images that the small world asks for")
        ] = 0.1
        zipf_exponent: Annotated[float, Field(ge=0, description="how unevenly it asks; 0: evenly")] = 1.0
        timed_queries: Annotated[int, Field(ge=1, description="single queries whose latency is measured")] = 10
        backend: Annotated[Backend, Field(description="what searches the first level, exactly")] = "torch"

        @model_validator(mode="after")
        def _shares(self) -> Self:
            if not all(0 < share <= 1 for share in self.m_shares):
                raise ValueError("m_shares: shares are above 0, to 1")
            return self

    @classmethod
    def default_inputs(cls, config: Any) -> dict[str, list[dict[str, str]]]:
        return {"levels": [{"method": "clip_student"}, {"method": "two_tower"}]}

    def needs(self) -> tuple[str, ...]:
        return ("validation",) if self.config.m is None else ()

    def calibrate(self, modules: nn.ModuleDict, context: Context) -> None:
        if self.config.m is None:
            self.state["m_share"] = self._choose_share(context)

    def rebuild(self, context: Context) -> nn.ModuleDict:
        return nn.ModuleDict()

    def variants(self, modules: nn.ModuleDict, context: Context) -> list[Variant]:
        levels = context.input_list("levels")
        names: Sequence[str | None] = self.config.variants or [None] * len(levels)
        if len(names) != len(levels):
            raise UserError("one name a level", field="variants", value=names, allowed=f"{len(levels)} names")
        offered: list[Variant] = []
        opened: dict[str, list[Variant]] = {}
        for index, (level, name) in enumerate(zip(levels, names, strict=True)):
            # Levels of one run share its networks, so that one can continue from the other.
            own = opened.setdefault(str(level.path), level.variants())
            chosen = next((v for v in own if v.name == name), None) if name else own[0]
            if chosen is None:
                chosen = level.variant(name)
            offered.append(replace(chosen, name=f"level{index}", frozen=True))
        return offered

    def measure(self, variants: list[Variant], context: Context, split: str) -> list[Score]:
        scores = evaluate_variants(variants, context.evaluator, split, pairs=self.pairs)
        collection = Collection(variants, context, context.data.split(split), self.config.backend)
        m = self._widths(collection)
        by_caption = {f"text_to_image_recall_at_{k}": each for k, each in collection.by_caption(m).items()}
        metrics = {name: each.mean for name, each in by_caption.items()}
        if context.evaluator.costs:
            metrics |= self._costs(collection, m, context, scores, split)
        return scores + [
            Score(metric=name, value=value, split=split, variant="cascade", items=by_caption.get(name))
            for name, value in metrics.items()
        ]

    def _costs(
        self, collection: Collection, m: Sequence[int], context: Context, scores: list[Score], split: str
    ) -> dict[str, float]:
        """Metrics of the whole cascade; those of single levels are added to `scores`."""
        config, costs = self.config, collection.costs()
        options = (config.small_world_queries, config.hot_share, config.zipf_exponent, context.seed)
        workloads = {
            "every_image": collection.every_image(context.seed),
            "small_world": collection.small_world(*options),
        }
        metrics = _lifetime("assumed", costs, config.assumed_f)
        for name, workload in workloads.items():
            result = collection.run(workload, m)
            prefix = "first_caption_text_to_image" if name == "every_image" else name
            metrics |= {f"{prefix}_recall_at_{k}": value for k, value in result.recalls.items()}
            metrics |= _lifetime(name, costs, result.fractions)
            for level, fraction in enumerate(result.fractions):
                of_level = {
                    f"encoded_share_{name}": fraction,
                    f"encodes_per_query_{name}": float(result.encodes[:, level].mean()),
                }
                scores += [Score(metric=k, value=v, split=split, variant=f"level{level}") for k, v in of_level.items()]
        for level, (cost, width) in enumerate(zip(costs, [*m, 0], strict=True)):
            of_level = {"cascade_macs": cost.macs, "cascade_ms": 1e3 * cost.seconds, "candidates": float(width)}
            scores += [Score(metric=k, value=v, split=split, variant=f"level{level}") for k, v in of_level.items()]
        if len(costs) > 1:
            metrics["cold_query_macs"] = cold_query_cost([cost.macs for cost in costs], m)
            metrics["cold_query_ms"] = 1e3 * cold_query_cost([cost.seconds for cost in costs], m)
        if len(costs) > 2:
            metrics["cold_query_speedup"] = depth_speedup([cost.macs for cost in costs], m)
        timed = collection.queries(workloads["small_world"])[: config.timed_queries]
        for state, seconds in collection.latencies(timed, m).items():
            metrics[f"{state}_latency_ms"] = 1e3 * seconds["median"]
            metrics[f"{state}_latency_ms_p95"] = 1e3 * seconds["p95"]
        return metrics

    def _widths(self, collection: Collection, share: float | None = None) -> list[int]:
        """How many candidates each level but the last hands on, in this collection."""
        levels = len(collection.levels)
        if self.config.m is not None and share is None:
            return list(self.config.m)
        share = self.state["m_share"] if share is None else share
        narrowed = [share * self.config.narrowing**level for level in range(levels - 1)]
        return [min(collection.size, max(collection.ks[-1], math.ceil(part * collection.size))) for part in narrowed]

    def _choose_share(self, context: Context) -> float:
        variants = self.variants(nn.ModuleDict(), context)
        collection = Collection(variants, context, context.data.validation, self.config.backend)
        k = collection.ks[-1]
        wanted = collection.all_captions((), collection.levels[-1:])[k] - self.config.max_loss
        shares = sorted(self.config.m_shares)
        for share in shares:
            if collection.all_captions(self._widths(collection, share))[k] >= wanted:
                return share
        return shares[-1]


def _lifetime(name: str, costs: Sequence[LevelCost], fractions: float | Sequence[float]) -> dict[str, float]:
    """Cost and speed-up over a life, by MACs and by measured time, against the last level alone."""
    macs, seconds = ([getattr(cost, unit) for cost in costs] for unit in ("macs", "seconds"))
    return {
        f"lifetime_macs_{name}": lifetime_cost(macs, fractions),
        f"lifetime_speedup_{name}": lifetime_speedup(macs[-1:], macs, fractions, 1.0),
        f"lifetime_time_speedup_{name}": lifetime_speedup(seconds[-1:], seconds, fractions, 1.0),
    }
