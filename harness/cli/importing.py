"""The command that imports: `import`."""

from pathlib import Path
from typing import Annotated

import typer

from subnetbench.harness import api
from subnetbench.harness.cli.common import Data, DataRoot, Rerun, Results, Set, assignments, quiet
from subnetbench.harness.cli.progress import ProgressDisplay
from subnetbench.harness.cli.running import Input, print_launched


def import_(
    file: Annotated[Path, typer.Argument(help="State dictionary that another program wrote, or a CLIP folder.")],
    dataset: Annotated[str, typer.Argument(help="Data set that it is evaluated on.")],
    as_: Annotated[str, typer.Option("--as", help="Method whose networks the file holds.")],
    set_: Set = None,
    data: Data = None,
    input_: Input = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Results = None,
    data_root: DataRoot = None,
    rerun: Rerun = False,
) -> None:
    """Make a finished run of weights that another program trained: evaluated and recorded as imported.

    Example: `subnetbench import cub-448r-resnet50-512-gem-w.pth cub --as distillation --set image_size=448`
    """
    with ProgressDisplay(quiet()) as display:
        done = api.import_(
            file,
            dataset,
            as_,
            config=assignments(set_, "--set"),
            data=assignments(data, "--data"),
            inputs=assignments(input_, "--input"),
            device=device,  # type: ignore[arg-type]
            results=out or "results/runs",
            data_root=data_root,
            rerun=rerun,
            progress=display,
        )
    print_launched([*done.inputs, done], done.results, done.submission, False)
