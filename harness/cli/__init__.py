"""The command line: one module a group of commands, imported only when asked for help or run."""

import os
import sys


def main() -> None:
    """Entry point of `subnetbench`: errors of the user are one message and exit status 2, failures 1."""
    # Running in a checkout must not put its folders (`datasets`!) before installed packages.
    sys.path[:] = [entry for entry in sys.path if entry not in ("", os.getcwd())]
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    from subnetbench.harness.cli.app import app
    from subnetbench.harness.errors import SubnetbenchError

    try:
        app()
    except SubnetbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
