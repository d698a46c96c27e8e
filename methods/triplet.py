"""Triplet loss with class-balanced batches and mined negatives: the symmetric metric-learning baseline."""

from subnetbench.harness.method import register_method
from subnetbench.methods.parts.bases.triplet import TripletConfig, TripletMethod


@register_method("triplet")
class Triplet(TripletMethod[TripletConfig]):
    """Anchors pull the other images of their class and push negatives that the present network finds.

    The protocol by which teachers and baselines of resolution-asymmetric distillation are trained. Negatives are
    drawn by distance-weighted sampling (Wu et al. 2017) over a pool embedded at the start of each epoch. With `preset:
    paper` they are drawn with the faults of the published code (see `plan_triplet_epoch`).
    """

    paper = "Suma and Tolias, Large-to-small Image Resolution Asymmetry in Deep Metric Learning, arXiv 2210.05463"

    tiny = {"image_size": 16, "dim": 16, "query_limit": 32}

    Config = TripletConfig
