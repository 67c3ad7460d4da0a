"""Interfaces and addresses that would make hosts wait for each other are named; others are left as they are."""

import socket
from types import SimpleNamespace

import psutil
import pytest

from backbones.errors import UserError
from backbones.training import network
from backbones.training.network import explaining_absence, is_loopback, prepare_network, source_address, spans_hosts

GLOO = "GLOO_SOCKET_IFNAME"
HOST0 = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
MEETING = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
FIRST, SECOND = HOST0 | MEETING, HOST0 | MEETING | {"RANK": "2"}
INTERFACES = {"lo": ["127.0.0.1", "::1"], "eth0": ["10.0.0.1"], "ib0": ["10.1.0.1"], "eth1": [], "eth2": ["10.2.0.1"]}


@pytest.fixture
def host(monkeypatch):
    """The function that makes this process believe in a host: host(names=, route=, interfaces=, down=)."""

    def make(*, names=None, route: str | None = "10.0.0.1", interfaces=INTERFACES, down=("eth2",)) -> None:
        names = {"here": "127.0.1.1", "10.0.0.1": "10.0.0.1"} if names is None else names

        def resolve(name, *_, **__):
            if name not in names:
                raise socket.gaierror(-2, "Name or service not known")
            return [(0, 0, 0, "", (names[name], 0))]

        def row(address: str) -> SimpleNamespace:
            return SimpleNamespace(family=socket.AF_INET6 if ":" in address else socket.AF_INET, address=address)

        rows = {name: [*map(row, addresses)] for name, addresses in interfaces.items()}
        monkeypatch.setattr(socket, "gethostname", lambda: "here")
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        monkeypatch.setattr(psutil, "net_if_addrs", lambda: rows)
        monkeypatch.setattr(
            psutil, "net_if_stats", lambda: {n: SimpleNamespace(isup=n not in down) for n in interfaces}
        )
        monkeypatch.setattr(network, "source_address", lambda _: route)

    return make


def test_a_host_whose_name_is_a_loopback_address_gets_the_interface_that_reaches_the_first(host, capsys):
    host(route="10.1.0.1")
    environment = dict(FIRST)
    prepare_network(environment)
    assert environment == FIRST | {GLOO: "ib0"}
    assert "here resolves to 127.0.1.1 here, so GLOO_SOCKET_IFNAME=ib0: ib0 (10.1.0.1)" in capsys.readouterr().out


def test_one_process_of_each_host_says_so(host, capsys):
    host()
    environment = FIRST | {"LOCAL_RANK": "1", "RANK": "1"}
    prepare_network(environment)
    assert environment[GLOO] == "eth0"
    assert capsys.readouterr().out == ""


def test_a_name_that_resolves_to_nothing_is_as_bad(host):
    """Gloo then falls back to the loopback address."""
    host(names={"10.0.0.1": "10.0.0.1"})
    environment = dict(FIRST)
    prepare_network(environment)
    assert environment[GLOO] == "eth0"


def test_a_name_with_the_address_of_another_host_is_as_bad(host):
    host(names={"here": "10.0.0.9", "10.0.0.1": "10.0.0.1"})
    environment = dict(FIRST)
    prepare_network(environment)
    assert environment[GLOO] == "eth0"


@pytest.mark.parametrize("given", [{}, {GLOO: "eth0"}, {GLOO: "eth0,ib0"}])
def test_a_host_that_is_set_up_well_is_left_alone(host, capsys, given):
    host(names={"here": "10.1.0.1", "10.0.0.1": "10.0.0.1"})
    environment = FIRST | given
    prepare_network(environment)
    assert environment == FIRST | given
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("eth9", r"GLOO_SOCKET_IFNAME=eth9: here has no such interface."),
        ("eth0,wlan", r"GLOO_SOCKET_IFNAME=eth0,wlan: here has no such interface"),
        ("lo", r"here cannot reach other hosts over lo \(127.0.0.1, ::1\)"),
        ("eth1", r"here cannot reach other hosts over eth1 \(no address\)"),
        ("eth2", r"here cannot reach other hosts over eth2 \(10.2.0.1, down\)"),
    ],
)
def test_an_interface_that_cannot_work_is_refused_with_the_ones_that_can(host, name, message):
    host()
    with pytest.raises(UserError, match=message) as caught:
        prepare_network(FIRST | {GLOO: name})
    remedy = str(caught.value).splitlines()[-1]
    assert remedy == (
        "Write export GLOO_SOCKET_IFNAME=eth0 for eth0 (10.0.0.1), or export GLOO_SOCKET_IFNAME=ib0 for ib0 (10.1.0.1)."
    )


def test_an_interface_that_cannot_be_known_is_asked_for(host):
    """The address of the first host is a loopback address here, as /etc/hosts of a Debian host has it."""
    host(route="127.0.0.1", names={"here": "127.0.1.1", "first": "127.0.1.1"})
    with pytest.raises(
        UserError, match=r"the name of this host, here, .* not clear(.|\n)*IFNAME=eth0(.|\n)*IFNAME=ib0"
    ):
        prepare_network(FIRST | {"MASTER_ADDR": "first"})


def test_the_only_interface_is_the_right_one(host):
    host(route=None, interfaces={"lo": ["127.0.0.1"], "eth0": ["10.0.0.1"]})
    environment = dict(FIRST)
    prepare_network(environment)
    assert environment[GLOO] == "eth0"


def test_a_host_without_a_network_is_told_so(host):
    host(route=None, down=("eth0", "ib0", "eth2"))
    with pytest.raises(UserError, match=r"No interface of this host reaches others: lo .*, eth0 \(10.0.0.1, down\)"):
        prepare_network(dict(FIRST))


def test_a_first_host_without_an_address_is_named(host):
    host(names={"here": "10.0.0.1"})
    with pytest.raises(UserError, match="MASTER_ADDR=typo does not resolve on here: Name or service not known"):
        prepare_network(FIRST | {"MASTER_ADDR": "typo"})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (FIRST, True),
        (SECOND, True),
        (FIRST | {"WORLD_SIZE": "2"}, False),
        (FIRST | {"MASTER_ADDR": "127.0.0.1"}, False),
        (FIRST | {"MASTER_ADDR": "localhost"}, False),
        ({key: value for key, value in FIRST.items() if key != "LOCAL_WORLD_SIZE"}, False),
        ({}, False),
    ],
)
def test_only_several_hosts_are_looked_at(environment, expected):
    assert spans_hosts(environment) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.1.1", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("n", False),
    ],
)
def test_loopback_addresses_are_known(address, expected):
    assert is_loopback(address) == expected


def test_packets_to_this_host_come_from_the_same_address():
    assert source_address("127.0.0.1") == "127.0.0.1"
    assert source_address("::ffff:999.1.1.1") is None


@pytest.fixture
def listener():
    """A socket that listens on a port of this host."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


def test_a_first_host_that_answers_is_reached(listener):
    network.await_first_host("127.0.0.1", listener.getsockname()[1], limit=0.0)


def test_a_first_host_that_does_not_answer_is_named_in_time(listener):
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(
        UserError, match=rf"does not reach MASTER_ADDR=127.0.0.1, MASTER_PORT={port} within 0.3 s: .*refused"
    ):
        network.await_first_host("127.0.0.1", port, limit=0.3)


def test_a_first_host_that_comes_later_is_waited_for(monkeypatch, listener):
    attempts = []

    def connect(address, timeout):
        attempts.append(address)
        if len(attempts) < 3:
            raise ConnectionRefusedError(111, "Connection refused")
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(network, "POLL_SECONDS", 0.001)
    network.await_first_host("10.0.0.1", 29500, limit=30)
    assert attempts == [("10.0.0.1", 29500)] * 3


@pytest.mark.parametrize(("environment", "waits"), [(FIRST, []), (SECOND, [("10.0.0.1", 29500, 7)])])
def test_only_the_other_hosts_wait_for_the_first(host, monkeypatch, environment, waits):
    host(names={"here": "10.1.0.1", "10.0.0.1": "10.0.0.1"})
    seen = []
    monkeypatch.setattr(network, "await_first_host", lambda master, port, *, limit: seen.append((master, port, limit)))
    prepare_network(dict(environment), limit=7)
    assert seen == waits


ABSENT = [
    "Timed out after 9 seconds waiting for clients. 1/4 clients joined.",
    "Gloo connectFullMesh failed with [gloo/transport/tcp/pair.cc:144] no error",
    "Connection reset by peer",
]


@pytest.mark.parametrize("text", ABSENT)
def test_processes_that_do_not_meet_are_told_which_and_where(host, text):
    host()
    with (
        pytest.raises(
            UserError, match=r"process 2 on here: the 4 processes did not come together within 600 s"
        ) as caught,
        explaining_absence(600, SECOND),
    ):
        raise RuntimeError(text)
    assert text in str(caught.value)


@pytest.mark.parametrize(("text", "environment"), [("CUDA error", SECOND), (ABSENT[0], {})])
def test_other_errors_stay_what_they_are(text, environment):
    with pytest.raises(RuntimeError, match=text), explaining_absence(600, environment):
        raise RuntimeError(text)
