"""The command line: one module a group of commands, imported only when asked for help or run."""

import os
import sys
import traceback
from typing import NoReturn

_LONGEST = 200


def main() -> None:
    """Entry point of `subnetbench`: errors of the user are one message and exit status 2, failures 1.

    Whatever else goes wrong is one line too; `--verbose` shows where.
    """
    # Running in a checkout must not put its folders (`datasets`!) before installed packages.
    sys.path[:] = [entry for entry in sys.path if entry not in ("", os.getcwd())]
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    from subnetbench.harness.cli.app import app  # late: once the path is clean
    from subnetbench.harness.cli.output import SafeOutput  # late: once the path is clean
    from subnetbench.harness.core.errors import SubnetbenchError  # late: once the path is clean

    sys.stdout, sys.stderr = SafeOutput(sys.stdout), SafeOutput(sys.stderr)
    try:
        app()
    except SubnetbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _end(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except MemoryError:
        _end("there is not enough memory for this")
    except Exception as error:
        text = " ".join(str(error).split())[:_LONGEST]
        _end(f"a fault of subnetbench, not of yours: {type(error).__name__}: {text} (--verbose shows where)")


def _end(message: str) -> NoReturn:
    """Print an error and leave; with `--verbose` what led to it comes first."""
    if "--verbose" in sys.argv or "-v" in sys.argv:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
