"""A real SLURM with two nodes on this machine: each is a host of its own, and one root has the packages."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.hosts.namespaces import END_WITH_PARENT, Host, kill, two_hosts, wait_until

HOSTS_FILE = "127.0.0.1 localhost\n10.77.0.1 n1\n10.77.0.2 n2\n"

# Short times, so that a job starts, and starts again, within seconds
CONF = """
ClusterName=test
SlurmctldHost=n1(10.77.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd-%n
SlurmdPidFile=/run/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=2
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=300
KillWait=30
NodeName=n1 NodeAddr=10.77.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
NodeName=n2 NodeAddr=10.77.0.2 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=p Nodes=n[1-2] Default=YES MaxTime=60 State=UP
"""


class Slurm(NamedTuple):
    """A SLURM that runs."""

    nodes: tuple[Host, Host]
    root: Path
    """Its root, as seen in the mount namespace of ``keeper``."""
    keeper: int
    """First process of its namespaces."""
    shared: Path
    """Folder that jobs and tests both see."""
    daemons: ExitStack

    def command(self, node: Host, *words: str | Path) -> list[str]:
        """Return the words that run a command on a node."""
        net, uts = (f"--{kind}=/proc/{node.holder}/ns/{kind}" for kind in ("net", "uts"))
        spaces = ("nsenter", "--target", str(self.keeper), "--mount", "--pid", net, uts)
        return [*END_WITH_PARENT, *spaces, "chroot", str(self.root), *map(str, words)]

    def ask(self, *words: str | Path) -> str:
        """Return what a command says on the first node."""
        command = self.command(self.nodes[0], *words)
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    def start_node(self, node: Host) -> None:
        """Start the daemon of a node."""
        log = self.shared / f"slurmd-{node.name}.log"
        self.daemons.enter_context(_daemon(self.command(node, "slurmd", "-D", "-N", node.name, "-L", log)))

    def set_timeout(self, seconds: int) -> None:
        """Set the time after which SLURM takes a silent node for lost."""
        self.ask("sed", "-i", f"s/SlurmdTimeout=.*/SlurmdTimeout={seconds}/", "/etc/slurm/slurm.conf")
        self.ask("scontrol", "reconfigure")

    def lose_node(self, node: Host) -> None:
        """Kill every process on a node, as when its power fails."""
        kill(node.processes())

    def state(self, job: str) -> str:
        """Return the state of a job."""
        shown = self.ask("scontrol", "--oneliner", "show", "job", job)
        return dict(pair.split("=", 1) for pair in shown.split() if "=" in pair)["JobState"]

    def is_idle(self) -> bool:
        """Tell whether both nodes are up and free."""
        return self.ask("sinfo", "--noheader", "--format=%T %D") == "idle 2"


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Install and start SLURM during the block; skips the test where its packages cannot be had."""
    root, shared = folder / "root", folder / "shared"
    root.mkdir()
    shared.mkdir()
    (shared / "slurm.conf").write_text(CONF)
    (shared / "hosts").write_text(HOSTS_FILE)
    script = Path(__file__).with_name("slurm_root.sh")
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "bash", str(script), str(root), str(shared)]
    with (
        two_hosts(folder, names=("n1", "n2"), hosts_file=HOSTS_FILE) as nodes,
        subprocess.Popen([*END_WITH_PARENT, *words], stdout=subprocess.PIPE, text=True) as outer,
        ExitStack() as daemons,
    ):
        daemons.callback(outer.kill)
        made = Slurm(nodes, root / "mnt", _await_root(outer, shared), shared, daemons)
        controller = made.command(nodes[0], "slurmctld", "-D", "-c", "-L", shared / "slurmctld.log")
        daemons.enter_context(_daemon(controller))
        for node in nodes:
            made.start_node(node)
        wait_until(made.is_idle, 60, "two nodes")
        yield made


@contextmanager
def _daemon(command: list[str]) -> Iterator[None]:
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=silent, stderr=silent) as daemon:
        try:
            yield
        finally:
            daemon.kill()


def _await_root(outer: "subprocess.Popen[str]", shared: Path) -> int:
    """Return the first process of the root when SLURM is installed in it."""
    assert outer.stdout is not None
    answer = outer.stdout.readline().strip()
    if answer != "ready":
        pytest.skip(f"SLURM cannot be installed: {answer or (shared / 'apt.log').read_text()[-300:]}")
    return int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0])
