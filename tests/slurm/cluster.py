"""A real two-node SLURM with accounting on this host, in a temporary folder, as root; leaves nothing behind.

    python tests/slurm/cluster.py sinfo          # run one command inside a cluster of its own

Needs Debian's packages in `PACKAGES`. Nodes are two `slurmd` daemons; all ports are free ones, munge has a key and
a socket of its own, and `SLURM_CONF` points every client at the temporary configuration.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge", "slurmdbd", "mariadb-server")
PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "mariadb-install-db", "sbatch")
NODES = ("sbn1", "sbn2")
HOSTS = Path("/etc/hosts")

SLURM_CONF = """
ClusterName=subnetbench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=1
SlurmdParameters=config_overrides
SlurmdTimeout={slurmd_timeout}
KillWait=10
MinJobAge=300
MaxArraySize=1001
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,bf_interval=3
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStoragePass={folder}/munge.socket
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs={cpus} RealMemory=8000
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs={cpus} RealMemory=8000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=0
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""

SLURMDBD_CONF = """
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mysql_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
"""


def missing() -> list[str]:
    """The programs that a cluster needs and this host lacks."""
    return [name for name in PROGRAMS if shutil.which(name) is None and not Path("/usr/sbin", name).exists()]


class Cluster:
    """Starts with `start`, ends with `stop`; `environment` is what clients need."""

    def __init__(self, *, cpus_per_node: int = 4, slurmd_timeout: int = 15) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sbslurm-", dir="/tmp"))
        self.folder.chmod(0o755)
        names = ("ctld_port", "dbd_port", "mysql_port", "port1", "port2")
        self._facts = {
            "folder": self.folder,
            "host": socket.gethostname().split(".")[0],
            "nodes": NODES,
            "cpus": cpus_per_node,
            "slurmd_timeout": slurmd_timeout,
            **dict(zip(names, _free_ports(len(names)), strict=True)),
        }
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start every daemon in the order that works; raises `RuntimeError` with the logs when one does not come up."""
        remove_leftovers()
        # On a request to end, this process still takes the cluster down.
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            self._configure()
            self._start_munge()
            self._start_accounting()
            self.start_daemon("slurmctld", "slurmctld", "-D", "-i")
            for node in NODES:
                self.start_node(node)
            self._until("the nodes are idle", lambda: set(self.call("sinfo", "-hN", "-o", "%T").split()) == {"idle"})
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all jobs and daemons, restore /etc/hosts, remove the folder."""
        try:
            if "slurmctld" in self.daemons:
                subprocess.run(
                    ["scancel", "--user=root", "--signal=KILL"], env=self.environment, timeout=15, check=False
                )
                subprocess.run(["scancel", "--user=root"], env=self.environment, timeout=15, check=False)
                time.sleep(1)
        except subprocess.TimeoutExpired:
            pass
        for process in reversed(self.daemons.values()):
            process.terminate()
        for process in self.daemons.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        _remove(self.folder)

    def call(self, *command: str, timeout: float = 30) -> str:
        """The standard output of a client; raises `CalledProcessError` or `TimeoutExpired`."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=True
        ).stdout

    def start_node(self, node: str) -> None:
        self.start_daemon(node, "slurmd", "-D", "-N", node)

    def resume(self, node: str) -> None:
        """Take a node that was set down into service again, unless it came back by itself."""
        if "down" in self.call("sinfo", "-hN", "-n", node, "-o", "%T"):
            self.call("scontrol", "update", f"nodename={node}", "state=resume")

    def start_accounting(self) -> None:
        """Start (again) the daemon that `sacct` asks."""
        self.start_daemon("slurmdbd", "slurmdbd", "-D")
        self._until("accounting answers", lambda: self.call("sacctmgr", "-n", "show", "user", timeout=5) != "")

    def stop_daemon(self, name: str, number: int = signal.SIGTERM) -> None:
        process = self.daemons.pop(name)
        process.send_signal(number)
        process.wait(timeout=20)

    def start_daemon(self, name: str, program: str, *arguments: str) -> None:
        with open(self.folder / f"{name}.out", "ab") as output:
            self.daemons[name] = subprocess.Popen(
                [shutil.which(program, path=self.environment["PATH"]) or program, *arguments],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _configure(self) -> None:
        for name, text in (("slurm.conf", SLURM_CONF), ("slurmdbd.conf", SLURMDBD_CONF)):
            (self.folder / name).write_text(text.format(**self._facts))
        (self.folder / "slurmdbd.conf").chmod(0o600)
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        (self.folder / "owner").write_text(str(os.getpid()))
        # The ranks of a run find each other by the names of their nodes.
        _edit_hosts(lambda lines: [*lines, f"127.0.0.1 {' '.join(NODES)} # {self.folder.name}"])

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        paths = {"key-file": key, "socket": self.folder / "munge.socket", "pid-file": self.folder / "munge.pid"}
        paths |= {"log-file": self.folder / "munge.log", "seed-file": self.folder / "munge.seed"}
        self.start_daemon(
            "munged", "munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in paths.items())
        )
        self._until("munge answers", (self.folder / "munge.socket").exists)

    def _start_accounting(self) -> None:
        data = self.folder / "mysql"
        subprocess.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={data}",
                "--user=root",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = self._facts["mysql_port"]
        self.start_daemon(
            "mariadbd",
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            f"--socket={self.folder}/mysql.socket",
            f"--pid-file={self.folder}/mysql.pid",
            "--bind-address=127.0.0.1",
            f"--port={port}",
            "--skip-grant-tables",
            "--innodb-flush-log-at-trx-commit=0",
        )
        self._until("the data base answers", lambda: _listens(int(str(port))))
        self.start_accounting()
        self.call("sacctmgr", "-i", "add", "cluster", "subnetbench")

    def _until(self, what: str, condition: Callable[[], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        fault = ""
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except (subprocess.SubprocessError, OSError) as error:
                fault = f": {error} {getattr(error, 'stderr', '')}"
            time.sleep(0.2)
        logs = "".join(
            f"\n--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for pattern in ("*.log", "*.out")
            for path in sorted(self.folder.glob(pattern))
        )
        raise RuntimeError(f"it did not happen that {what}{fault}{logs}")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _processes_of(folder: Path) -> list[int]:
    """Daemons, jobs and clients of a cluster: they find its configuration in their environment."""
    mark = f"SLURM_CONF={folder}/slurm.conf".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _remove(folder: Path) -> None:
    """End what is left of a cluster and forget its names and files."""
    for pid in _processes_of(folder):
        if pid != os.getpid():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    _edit_hosts(lambda lines: [line for line in lines if not line.endswith(f"# {folder.name}")])
    shutil.rmtree(folder, ignore_errors=True)


def _edit_hosts(change: Callable[[list[str]], list[str]]) -> None:
    """Change the lines of /etc/hosts in place, one cluster at a time."""
    with open(HOSTS, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = file.read()
        after = "\n".join(change(before.splitlines())) + "\n"
        if after.rstrip() != before.rstrip():
            file.seek(0)
            file.truncate()
            file.write(after)


def remove_leftovers() -> None:
    """Remove clusters whose owner was killed before it could do so."""
    for folder in Path("/tmp").glob("sbslurm-*"):
        try:
            owner = int((folder / "owner").read_text())
        except (OSError, ValueError):
            continue
        if not Path(f"/proc/{owner}").exists():
            _remove(folder)


if __name__ == "__main__":
    cluster = Cluster()
    cluster.start()
    try:
        sys.exit(subprocess.run(sys.argv[1:], env=cluster.environment, check=False).returncode)
    finally:
        cluster.stop()
