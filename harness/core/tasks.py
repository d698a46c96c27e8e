"""The three tasks, and the metric by which each is ranked and its checkpoints are selected.

Search by text is judged by recall at 10: it is what a cascade has to keep, and over the few hundred queries of a small
test set it is far less noisy than recall at 1.
"""

from typing import Literal

Task = Literal["classification", "retrieval", "text_image"]
TASKS: tuple[Task, ...] = ("classification", "retrieval", "text_image")

PRIMARY_METRIC: dict[str, str] = {
    "classification": "top1",
    "retrieval": "recall_at_1",
    "text_image": "text_to_image_recall_at_10",
}
