"""Commands that use trained runs: `evaluate`, `embed`, `export`; and `check` for plug-ins."""

from pathlib import Path
from typing import Annotated

import typer

from subnetbench.harness import api, testing
from subnetbench.harness.cli.common import Data, DataRoot, Json, assignments, note, print_json, print_table
from subnetbench.harness.cli.curves import print_matrices

Run = Annotated[str, typer.Argument(help="Run folder, weights file, or (the beginning of) a run id.")]
Out = Annotated[Path | None, typer.Option("--out", help="Results folder in which run ids are looked up.")]
VariantName = Annotated[str | None, typer.Option("--variant", help="One variant of the run [default: the first].")]
SplitName = Annotated[str, typer.Option("--split", help="train, validation or test.")]
ImageSize = Annotated[
    int | None, typer.Option("--image-size", min=8, help="Side of the images in pixels [default: the run's].")
]
Scales = Annotated[
    list[float] | None,
    typer.Option("--scale", help="Factor on that side, repeatable: embeddings are averaged over all (retrieval)."),
]
Gallery = Annotated[str | None, typer.Option("--gallery", help="Another run, which embeds the gallery (retrieval).")]
GalleryVariant = Annotated[
    str | None, typer.Option("--gallery-variant", help="One variant of that run [default: the first].")
]
Record = Annotated[
    bool,
    typer.Option("--record/--no-record", help="Keep what is scored on other data, or otherwise, as rows of the run."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


def evaluate(
    run: Run,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Another data set of its task.")] = None,
    data: Data = None,
    split: SplitName = "test",
    variant: Annotated[
        list[str] | None,
        typer.Option("--variant", help="Only this one, repeatable; also capacities that were never trained."),
    ] = None,
    image_size: ImageSize = None,
    scale: Scales = None,
    gallery: Gallery = None,
    gallery_variant: GalleryVariant = None,
    record: Record = True,
    out: Out = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    json_: Json = False,
) -> None:
    """Score a finished run or a weights file on any data set of its task, without training.

    What it scores on other data than its own becomes rows of the run in leaderboards.

    Example: `subnetbench evaluate results/quickstart/runs/triplet-emoji-s0-3fa9c2d1e4 --split validation`
    """
    evaluation = api.evaluate(
        run,
        dataset=dataset,
        data=assignments(data, "--data"),
        split=split,
        variants=variant,
        image_size=image_size,
        scales=scale or (),
        gallery=gallery,
        gallery_variant=gallery_variant,
        record=record,
        results=out,
        data_root=data_root,
        device=device,
        threads=threads,
    )
    if evaluation.record is not None:
        note(f"recorded in {evaluation.record}", err=json_)
    if json_:
        print_json(evaluation.frame.to_dict("records"))
        return
    shown = [(s.variant, s.gallery_variant, s.split, s.metric, f"{s.value:.6g}") for s in evaluation.scores]
    print_table(("variant", "gallery", "split", "metric", "value"), shown)
    print_matrices(evaluation.matrices())


def embed(
    run: Run,
    file: Annotated[Path, typer.Argument(help="Where to write: a .npz with `outputs` and `labels`.")],
    dataset: Annotated[str | None, typer.Option("--dataset", help="Another data set.")] = None,
    data: Data = None,
    split: SplitName = "test",
    variant: VariantName = None,
    out: Out = None,
    data_root: DataRoot = None,
    device: Device = "auto",
) -> None:
    """Write a variant's outputs (embeddings, or logits of a classifier) for all images of a split.

    Example: `subnetbench embed triplet-emoji-s0 embeddings.npz --out results/quickstart`
    """
    embedding = api.embed(
        run,
        file,
        dataset=dataset,
        data=assignments(data, "--data"),
        split=split,
        variant=variant,
        results=out,
        data_root=data_root,
        device=device,
    )
    note(f"{file}: outputs {embedding.outputs.shape}")


def export(
    run: Run,
    variant: VariantName = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="safetensors, torch_export, onnx; repeatable.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Folder to write to [default: the run's `export`].")] = None,
    out: Out = None,
    data_root: DataRoot = None,
) -> None:
    """Write a variant as a plain network for use elsewhere; outputs are compared after export.

    Example: `subnetbench export edge_popup-emoji-s0 --variant subnetwork --out results/quickstart`
    """
    exported = api.export(run, variant, formats=formats or api.FORMATS, to=to, results=out, data_root=data_root)
    rows = [(each.format, each.path or "-", each.detail) for each in exported]
    print_table(("format", "file", "result"), rows)
    if any(each.path is None and each.format in (formats or ()) for each in exported):
        raise typer.Exit(1)


def check(
    file: Annotated[Path, typer.Argument(help="Python file that registers methods or data sets.")],
    data_root: DataRoot = None,
) -> None:
    """Run the conformance suite on a plug-in file: the checks that all built-in methods and data sets pass.

    Example: `subnetbench check my_method.py`
    """
    results = testing.check(file, data_root=data_root)
    print_table(("what", "check", "result"), [(r.subject, r.check, "ok" if r.ok else r.detail) for r in results])
    if not all(result.ok for result in results):
        raise typer.Exit(1)
