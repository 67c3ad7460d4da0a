"""Two hosts on this machine: network namespaces that are joined by a cable.

A holder process owns each of them. When it ends, also with the tests, its namespaces, its addresses and the cable are
gone: nothing has a name that could stay behind.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

TOOLS = ("ip", "unshare", "nsenter", "setpriv", "mount")
END_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")
CABLE = "eth0"
"""Name of the interface of each host."""


class Host(NamedTuple):
    """A host with one interface."""

    name: str
    address: str
    holder: int
    """Process that owns its namespaces."""

    def command(self, *words: str | Path) -> list[str]:
        """Return the words that run a command on this host."""
        spaces = ("nsenter", "--target", str(self.holder), "--net", "--uts", "--mount", f"--wd={Path.cwd()}")
        return [*END_WITH_PARENT, *spaces, *map(str, words)]

    def run(self, *words: str | Path) -> None:
        """Run a short command on this host."""
        subprocess.run(self.command(*words), check=True, timeout=20)

    def processes(self) -> list[psutil.Process]:
        """Return the processes in the network namespace of this host, without its holder."""
        here = _space(self.holder)
        return [found for found in psutil.process_iter() if found.pid != self.holder and _space(found.pid) == here]


def why_not() -> str | None:
    """Return why there can be no hosts on this machine, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"needs the commands {', '.join(missing)}"
    steps = "hostname a && mount --bind /etc/hosts /etc/hosts && ip link add name eth0 type veth peer name eth1"
    tried = subprocess.run(
        ["unshare", "--net", "--uts", "--mount", "sh", "-c", steps], capture_output=True, check=False
    )
    return None if tried.returncode == 0 else "this machine allows no namespaces with a cable between them"


@contextmanager
def two_hosts(
    folder: Path, *, names: tuple[str, str] = ("a", "b"), hosts_file: str = "127.0.0.1 localhost\n"
) -> Iterator[tuple[Host, Host]]:
    """Make two hosts, at 10.77.0.1 and 10.77.0.2, that resolve names by ``hosts_file``, during the block."""
    file = folder / "hosts"
    file.write_text(hosts_file)
    with ExitStack() as stack:
        a, b = (stack.enter_context(_host(name, f"10.77.0.{i}", file)) for i, name in enumerate(names, start=1))
        spaces = [("name", CABLE, "netns", str(host.holder)) for host in (a, b)]
        _ip("link", "add", *spaces[0], "type", "veth", "peer", *spaces[1])
        for host in (a, b):
            host.run("ip", "address", "add", f"{host.address}/24", "dev", CABLE)
            host.run("ip", "link", "set", CABLE, "up")
        yield a, b


@contextmanager
def _host(name: str, address: str, hosts_file: Path) -> Iterator[Host]:
    script = 'hostname "$0" && mount --bind "$1" /etc/hosts && ip link set lo up && echo ready && exec sleep infinity'
    words = [*END_WITH_PARENT, "unshare", "--net", "--uts", "--mount", "sh", "-c", script, name, str(hosts_file)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        host = Host(name, address, holder.pid)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            yield host
        finally:
            kill(host.processes())
            holder.kill()


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kill processes."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until ``condition()`` holds; AssertionError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20)


def _space(process: int) -> Path | None:
    """Return the network namespace of a process, None where it is gone."""
    try:
        return Path(f"/proc/{process}/ns/net").readlink()
    except OSError:
        return None
