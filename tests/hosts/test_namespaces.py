"""Training on two hosts, which are network namespaces: the same weights, named faults, and an end in time."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.hosts.namespaces import CABLE, Host, two_hosts, wait_until, why_not
from tests.hosts.runs import fingerprint, rows, state
from tests.tiny_runs import TINY

pytestmark = [pytest.mark.hosts, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

ROOT = Path(__file__).parents[2]
ACCELERATE = ["-m", "accelerate.commands.launch", "--config_file"]
TIMEOUT = 5
LIMIT = TIMEOUT + 40
"""Seconds in which a job ends after a host is lost."""

# As on Debian, where a host's own name is a loopback address
DEBIAN = "127.0.0.1 localhost\n127.0.1.1 a b\n"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> Iterator[tuple[Host, Host]]:
    """Two hosts whose names are loopback addresses."""
    with two_hosts(tmp_path_factory.mktemp("hosts"), hosts_file=DEBIAN) as pair:
        yield pair


def start(words: list[str], host: Host | None = None) -> subprocess.Popen[str]:
    """Start python on a host, or on this machine as it is."""
    command = [sys.executable, *words] if host is None else host.command(sys.executable, *words)
    environment = {name: value for name, value in os.environ.items() if name != "GLOO_SOCKET_IFNAME"}
    environment |= {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def train_on_both(hosts: tuple[Host, Host], data: Path, run: Path, *more: str) -> list[subprocess.Popen[str]]:
    """Start ``accelerate launch`` on each host, with one process each."""
    shape = ["--num_machines", "2", "--num_processes", "2", "--mixed_precision", "no"]
    launcher = [*ACCELERATE, "configs/accelerate/nodes2x8.yaml", *shape, "--main_process_ip", hosts[0].address]
    return [
        start([*launcher, "--machine_rank", str(rank), "train_imagenet.py", *training(data, run, *more)], host)
        for rank, host in enumerate(hosts)
    ]


def training(data: Path, run: Path, *more: str) -> list[str]:
    return [*TINY, "--model-ema", "--data-dir", str(data), "--output", str(run), "--resume", "auto", *more]


def test_two_hosts_train_to_the_weights_of_two_processes_on_one(hosts, image_folder, tmp_path):
    """Their names are loopback addresses, without GLOO_SOCKET_IFNAME: that is said, and the interface chosen."""
    jobs = train_on_both(hosts, image_folder, tmp_path / "two")
    outputs = [job.communicate(timeout=200)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    for host, output in zip(hosts, outputs, strict=True):
        assert f"{host.name} resolves to 127.0.1.1 here, so GLOO_SOCKET_IFNAME={CABLE}" in output
    words = [*ACCELERATE, "configs/accelerate/cpu2.yaml", "train_imagenet.py"]
    alone = start([*words, *training(image_folder, tmp_path / "one")])
    output, _ = alone.communicate(timeout=200)
    assert alone.returncode == 0, output
    assert fingerprint(tmp_path / "two") == fingerprint(tmp_path / "one")


def test_a_cut_cable_ends_both_hosts_in_time_and_one_of_them_goes_on(hosts, image_folder, tmp_path):
    run = tmp_path / "run"
    length = ["--epochs", "12", "--val-interval", "12", "--log.interval", "1"]
    jobs = train_on_both(hosts, image_folder, run, *length, "--ckpt-every", "3", "--timeout", str(TIMEOUT))
    wait_until(lambda: any(row["step"] >= 5 for row in rows(run)), 200, "step 5")
    hosts[0].run("ip", "link", "set", CABLE, "down")
    cut = time.monotonic()
    try:
        outputs = [job.communicate(timeout=LIMIT)[0] for job in jobs]
    finally:
        hosts[0].run("ip", "link", "set", CABLE, "up")
    assert time.monotonic() - cut < LIMIT
    assert 0 not in [job.returncode for job in jobs]
    for rank, (host, output) in enumerate(zip(hosts, outputs, strict=True)):
        assert f"process {rank} on {host.name}: after step " in output, output
    assert state(run) == "failed"
    reached = max(row["step"] for row in rows(run))

    output, _ = start(["train_imagenet.py", "--output", str(run), "--resume", "auto"]).communicate(timeout=200)
    assert state(run) == "finished", output
    assert reached < 48 == rows(run)[-1]["step"]


def test_hosts_that_do_not_come_together_end_in_their_own_limit(hosts):
    """Each waits alone: the first one for the other, the other one for the first, at two ports."""
    words = ["-m", "torch.distributed.run", "--nnodes", "2", "--rdzv-conf", "timeout=4", "--master-addr"]
    words += [hosts[0].address, "--master-port"]
    jobs = [start([*words, f"2951{rank}", "--node-rank", str(rank), "x.py"], host) for rank, host in enumerate(hosts)]
    outputs = [job.communicate(timeout=100)[0] for job in jobs]
    assert 0 not in [job.returncode for job in jobs]
    assert "1/2 clients joined" in outputs[0]
    assert "(10.77.0.1, 29511)" in outputs[1]


QUESTIONS = (
    {"MASTER_ADDR": "10.77.0.1", "GLOO_SOCKET_IFNAME": "ib0"},
    {"MASTER_ADDR": "first"},
    {"MASTER_ADDR": "10.77.0.1"},
)
ASK = f"""
import os
from backbones.errors import UserError
from backbones.training.network import prepare_network
for question in {QUESTIONS}:
    try:
        prepare_network(os.environ | question, limit=1)
    except UserError as error:
        print(" ".join(str(error).split()))
"""


def test_a_wrong_interface_name_or_address_is_named_on_the_host_that_has_it(hosts):
    given = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "RANK": "1", "LOCAL_RANK": "1", "MASTER_PORT": "29512"}
    words = ["env", *(f"{name}={value}" for name, value in given.items()), sys.executable, "-c", ASK]
    command = hosts[1].command(*words)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    interface, name, address = done.stdout.splitlines()
    assert interface.startswith("GLOO_SOCKET_IFNAME=ib0: b has no such interface.")
    assert "export GLOO_SOCKET_IFNAME=eth0 for eth0 (10.77.0.2" in interface
    assert name.startswith("MASTER_ADDR=first does not resolve on b: ")
    assert address.startswith("b does not reach MASTER_ADDR=10.77.0.1, MASTER_PORT=29512 within 1 s: ")


def test_nothing_of_the_hosts_is_left(tmp_path):
    before = {path.name for path in Path("/sys/class/net").iterdir()}
    with two_hosts(tmp_path) as (a, b):
        job = start(["-c", "import time; time.sleep(100)"], a)
        wait_until(a.processes, 10, "a process")
    job.communicate(timeout=10)
    assert not any(psutil.pid_exists(number) for number in (job.pid, a.holder, b.holder))
    assert {path.name for path in Path("/sys/class/net").iterdir()} == before
