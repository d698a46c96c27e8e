"""Weights that other programs wrote: read without running code, matched by name, refused where they do not fit.

Files are read by safetensors, or by torch with `weights_only`, which builds nothing but tensors and plain values. What
`fill` puts into a network covers it exactly: names that are missing or left over, other shapes and other kinds of
numbers are errors that name them.
"""

import pickle
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subnetbench.harness.core.errors import DataError, UserError

_CONTAINERS = ("state_dict", "model", "model_state_dict", "network", "net")
_WRAPPERS = ("module.", "_orig_mod.")
_NAMED = 5
_UNUSED = "num_batches_tracked"
"""How many batches a batch norm has seen, which files of old releases leave out, and which no output depends on."""


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds: its tensors by name, and beside them plain values.

    `settings` is the top level of the file without tensors (`meta`, `arch`, `hyper_parameters`); `unread` names the
    tables of tensors beside the one that was taken (an average of weights, an optimizer's).
    """

    path: Path
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, object] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    def renamed(self, tensors: Mapping[str, Tensor]) -> "Weights":
        """The same file with its tensors under other names."""
        return replace(self, tensors=tensors)

    def without(self, *prefixes: str) -> "Weights":
        """The same file without the tensors whose names begin so."""
        return self.renamed({name: value for name, value in self.tensors.items() if not name.startswith(prefixes)})


def read_weights(path: Path) -> Weights:
    """The tensors of a `.safetensors` file, or of what `torch.save` wrote of plain values and tensors.

    A table of tensors may be the file itself or stand under `state_dict` or `model`; `module.` of data parallelism and
    `_orig_mod.` of compilers are taken off.

    Raises:
        UserError: There is no such file, it holds objects that only code can build (the message has the line that
            converts it), or no table of tensors.
    """
    if not path.is_file():
        raise UserError("there is no such file of weights", field="weights", value=str(path))
    safe = _safetensors(path)
    found: object = _torch(path) if safe is None else safe
    if not isinstance(found, Mapping):
        raise UserError(f"holds no table of tensors, but a {type(found).__name__}", field=str(path))
    tensors, container = _table(found, path)
    settings = {str(key): value for key, value in found.items() if key != container and not isinstance(value, Tensor)}
    unread = tuple(name for name, value in settings.items() if _is_table(value))
    for wrapper in _WRAPPERS:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return Weights(path, tensors, settings, unread)


def fill(network: nn.Module, weights: Weights, *, fresh: Collection[str] = ()) -> None:
    """Put weights into a network, all of them and nothing else.

    Args:
        network: Its parameters and buffers are written in place, in their own precision.
        weights: Tensors under the network's own names.
        fresh: Names of tensors that may keep their first values where the file does not have them.

    Raises:
        UserError: Names of the network are missing in the file, the file has others, or shapes or kinds of numbers
            differ; the message names up to five of each.
    """
    own = network.state_dict(keep_vars=True)
    given = weights.tensors
    missing = [name for name in own if name not in given and name not in fresh and not name.endswith(_UNUSED)]
    faults = [
        *_listed("it lacks", missing),
        *_listed("the network has no", [name for name in given if name not in own]),
        *_listed("other shapes:", list(_misshapen(own, given))),
        *_listed("other kinds of numbers:", list(_of_other_kind(own, given))),
    ]
    if faults:
        raise UserError(f"does not fit the network: {'; '.join(faults)}", field=str(weights.path))
    with torch.no_grad():
        for name, value in given.items():
            own[name].copy_(value)


def _safetensors(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a safetensors file; None where it is none."""
    from safetensors import SafetensorError  # late: only files of weights need it
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        if path.suffix == ".safetensors":
            raise DataError(f"{path} is truncated or no safetensors file: {error}") from None
        return None


def _torch(path: Path) -> object:
    try:
        found: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"objects ({named[1]})" if named else "objects"
        raise UserError(
            f"holds {what} that only code can build, and code in files is not run here; where you "
            f"trust it, and with the program that wrote it on the path, convert it: {conversion(path)}",
            field=str(path),
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        if "TorchScript" in str(error):
            line = _command(f"torch.save(torch.jit.load({str(path)!r}, 'cpu').state_dict(), {_plain(path)!r})")
            raise UserError(
                f"is a TorchScript program, which is not run here; convert it: {line}", field=str(path)
            ) from None
        what = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} cannot be read by torch: {what[:160]}") from None
    return found


def conversion(path: Path) -> str:
    """The command that makes a file of plain tensors of a pickled module or checkpoint. It runs the file's code."""
    return _command(
        f"found = torch.load({str(path)!r}, map_location='cpu', weights_only=False); "
        "torch.save({k: found[k] for k in ('state_dict', 'model', 'meta') if k in found} "
        f"if isinstance(found, dict) else found.state_dict(), {_plain(path)!r})"
    )


def _command(statements: str) -> str:
    """A line for the shell, which must not read anything into the name of a file that somebody else chose."""
    return f"python -c {shlex.quote(f'import torch; {statements}')}"


def _plain(path: Path) -> str:
    return str(path.with_name(f"{path.stem}.plain.pth"))


def _table(found: Mapping[Any, object], path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The table of tensors in a file, and the key that it stands under (None: it is the file)."""
    direct = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if direct and all(isinstance(value, Tensor | int | float | str) for value in found.values()):
        return direct, None
    for key in _CONTAINERS:
        value = found.get(key)
        if isinstance(value, Mapping) and _is_table(value):
            return {str(name): tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}, key
    raise UserError(
        "holds no table of tensors",
        field=str(path),
        value=sorted(map(str, found))[:_NAMED],
        allowed=f"tensors by name, or these under {', '.join(_CONTAINERS)}",
    )


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(each, Tensor) for each in value.values())


def _listed(words: str, names: list[str]) -> Iterator[str]:
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield f"{words} {', '.join(names[:_NAMED])}{more}"


def _misshapen(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Iterator[str]:
    for name, value in given.items():
        if name in own and own[name].shape != value.shape:
            yield f"{name} is {tuple(value.shape)} and not {tuple(own[name].shape)}"


def _of_other_kind(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Iterator[str]:
    """Floating-point numbers of any precision stand for each other; whole numbers, complex and quantised ones do not."""
    for name, value in given.items():
        if name in own and (own[name].is_floating_point() != value.is_floating_point() or value.is_quantized):
            yield f"{name} is {value.dtype} and not {own[name].dtype}"
