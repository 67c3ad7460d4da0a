"""Network problems of several hosts, found and named before the processes meet.

Gloo advertises the address that this host's name resolves to. Where that is a loopback address, as on many Debian
hosts, the others cannot answer, and the first host waits for them until its timeout. The control of a run goes over
gloo, also on GPUs.
"""

import os
import re
import socket
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from ipaddress import ip_address
from typing import NamedTuple

import psutil

from backbones.errors import UserError
from backbones.terminal import say

GLOO = "GLOO_SOCKET_IFNAME"
"""Variable with the interface, or interfaces, that gloo uses."""

CONNECT_SECONDS = 120.0
"""Longest wait for the first host, which opens its port when its process starts."""

POLL_SECONDS = 0.5
"""Time between two attempts to reach the first host, and limit for each."""

ABSENCE_TEXTS = r"(?i)timed out|timeout|connectFullMesh|connection (closed|reset|refused)|clients joined|failed to recv"
"""Texts in the errors of gloo, NCCL and torch's store where other processes do not answer."""

INTERNET = (socket.AF_INET, socket.AF_INET6)


class Interface(NamedTuple):
    """A network interface of this host."""

    name: str
    addresses: tuple[str, ...]
    is_up: bool

    @property
    def is_usable(self) -> bool:
        """True where other hosts can be reached over it."""
        return self.is_up and any(not is_loopback(address) for address in self.addresses)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.addresses) or 'no address'}{'' if self.is_up else ', down'})"


def prepare_network(environment: MutableMapping[str, str] = os.environ, *, limit: float = CONNECT_SECONDS) -> None:
    """Make sure that gloo uses an interface that other hosts reach, and that the first host answers.

    Sets GLOO_SOCKET_IFNAME in ``environment``, and says so, where it is unset and this host's name resolves to a
    loopback address. Does nothing where all processes run on one host.

    Raises UserError, which names the variable and the remedy, where the interface does not exist or cannot be chosen,
    or where MASTER_ADDR does not resolve or does not answer within ``limit`` seconds.
    """
    if not spans_hosts(environment):
        return
    master = environment["MASTER_ADDR"]
    address = resolve_master(master)
    interfaces = list_interfaces()
    if environment.get(GLOO):
        require_interfaces(environment[GLOO], interfaces)
    elif is_loopback(own := advertised_address(interfaces)):
        chosen = choose_interface(address, interfaces)
        environment[GLOO] = chosen.name
        if environment.get("LOCAL_RANK", "0") == "0":
            say("network", f"{socket.gethostname()} resolves to {own} here, so {GLOO}={chosen.name}: {chosen}")
    if int(environment["RANK"]) >= int(environment["LOCAL_WORLD_SIZE"]):
        await_first_host(master, int(environment["MASTER_PORT"]), limit=min(limit, CONNECT_SECONDS))


def spans_hosts(environment: MutableMapping[str, str]) -> bool:
    """Tell whether the processes run on several hosts. A loopback MASTER_ADDR means one host, whatever else is said."""
    master = environment.get("MASTER_ADDR", "localhost")
    size, here = (int(environment.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return "LOCAL_WORLD_SIZE" in environment and size > here and master != "localhost" and not is_loopback(master)


def is_loopback(address: str) -> bool:
    """Tell whether an IP address is one of this host alone; a name is not."""
    try:
        return ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def list_interfaces() -> list[Interface]:
    """Return the network interfaces of this host with their IP addresses."""
    is_up = {name: stats.isup for name, stats in psutil.net_if_stats().items()}
    return [
        Interface(name, tuple(row.address for row in rows if row.family in INTERNET), is_up.get(name, False))
        for name, rows in psutil.net_if_addrs().items()
    ]


def resolve_master(master: str) -> str:
    """Return the IP address of the first host."""
    try:
        return str(socket.getaddrinfo(master, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise UserError(
            f"MASTER_ADDR={master} does not resolve on {socket.gethostname()}: {error.strerror}.\n"
            "Name the first host by its IP address, or correct /etc/hosts or DNS here."
        ) from None


def require_interfaces(names: str, interfaces: list[Interface]) -> None:
    """Raise UserError unless each of these names, divided by commas, is an interface that reaches other hosts."""
    known = {interface.name: interface for interface in interfaces}
    for name in names.split(","):
        if name not in known:
            problem = "has no such interface."
        elif not known[name].is_usable:
            problem = f"cannot reach other hosts over {known[name]}."
        else:
            continue
        raise UserError(f"{GLOO}={names}: {socket.gethostname()} {problem}\n{_list_remedies(interfaces)}")


def advertised_address(interfaces: list[Interface]) -> str:
    """Return the address that gloo tells the other hosts: the first own one that this host's name resolves to."""
    own = {address.partition("%")[0] for interface in interfaces for address in interface.addresses}
    try:
        found = [str(row[4][0]) for row in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)]
    except OSError:
        found = []
    return next((address for address in found if address in own or is_loopback(address)), "127.0.0.1")


def choose_interface(master: str, interfaces: list[Interface]) -> Interface:
    """Return the interface over which this host reaches the first one, or the only one that reaches any."""
    usable = [interface for interface in interfaces if interface.is_usable]
    local = source_address(master)
    routed = [interface for interface in usable if local in interface.addresses]
    if len(chosen := routed or usable) == 1:
        return chosen[0]
    raise UserError(
        f"the name of this host, {socket.gethostname()}, resolves to a loopback address, which other hosts cannot "
        f"reach, and it is not clear which interface they reach.\n{_list_remedies(interfaces)}"
    )


def source_address(master: str) -> str | None:
    """Return the address from which packets go to ``master``, None where there is no way; no packet is sent."""
    family = socket.AF_INET6 if ":" in master else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((master, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def await_first_host(master: str, port: int, *, limit: float) -> None:
    """Return when the first host answers; UserError where it does not within ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while True:
        try:
            with socket.create_connection((master, port), timeout=POLL_SECONDS):
                return
        except OSError as error:
            problem = error.strerror or str(error)
        if time.monotonic() >= deadline:
            raise UserError(
                f"{socket.gethostname()} does not reach MASTER_ADDR={master}, MASTER_PORT={port} within {limit:g} s: "
                f"{problem}.\nIs the first host running, is that its address, and does a firewall close the port?"
            )
        time.sleep(POLL_SECONDS)


@contextmanager
def explaining_absence(timeout: float, environment: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Turn the error of processes that do not meet into a UserError with process and host."""
    try:
        yield
    except RuntimeError as error:
        if int(environment.get("WORLD_SIZE", 1)) == 1 or not re.search(ABSENCE_TEXTS, str(error)):
            raise
        raise UserError(
            f"process {environment.get('RANK', 0)} on {socket.gethostname()}: the {environment['WORLD_SIZE']} "
            f"processes did not come together within {timeout:g} s (--first-timeout): {str(error).splitlines()[0]}"
        ) from error


def _list_remedies(interfaces: list[Interface]) -> str:
    """Say what to export, for each interface that reaches other hosts."""
    usable = [interface for interface in interfaces if interface.is_usable]
    if not usable:
        return f"No interface of this host reaches others: {', '.join(map(str, interfaces))}."
    return "Write " + ", or ".join(f"export {GLOO}={found.name} for {found}" for found in usable) + "."
