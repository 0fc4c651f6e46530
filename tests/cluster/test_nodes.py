"""A training on two nodes: in two network namespaces, which share no device."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jemtrack.train import distributed
from jemtrack.train.launch import Runtime

A, B = "jemtrack-a", "jemtrack-b"
ADDRESS = "10.77.0"
LAUNCH = """
from test_nodes import networks

from jemtrack.shared.hardware import Hardware
from jemtrack.train.launch import launch

if __name__ == "__main__":
    hardware = Hardware(device="cpu", processes=4, nodes=2, threads=1)
    print(*launch(hardware, networks, "x" * 10**6))
"""
# Runs the command in the other namespace, as srun does on the other node.
SRUN = f"""#!/bin/sh
while [ "${{1#--}}" != "$1" ]; do shift; done
exec ip netns exec {B} env SLURM_PROCID=0 GLOO_SOCKET_IFNAME={B} "$@"
"""


def networks(runtime: Runtime, text: str) -> list[str]:
    """Name the network of each process, by rank; the text is longer than a pipe holds."""
    assert len(text) == 10**6
    return distributed.gather_to_rank_zero(str(Path("/proc/self/ns/net").readlink()))


@pytest.fixture
def _two_networks() -> Iterator[None]:
    """Two network namespaces with a device each, joined as by a cable."""

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    for name in (A, B):
        ip("netns", "add", name)
    try:
        ip("link", "add", A, "netns", A, "type", "veth", "peer", "name", B, "netns", B)
        for number, name in enumerate((A, B), 1):
            ip("-n", name, "address", "add", f"{ADDRESS}.{number}/24", "dev", name)
            for device in ("lo", name):
                ip("-n", name, "link", "set", device, "up")
        yield
    finally:
        for name in (A, B):
            ip("netns", "delete", name)


@pytest.mark.usefixtures("_two_networks")
def test_processes_of_two_networks_train_together(tmp_path):
    (tmp_path / "launched.py").write_text(LAUNCH)
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    found = subprocess.run(
        ["ip", "netns", "exec", A, sys.executable, "launched.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "SLURM_JOB_NUM_NODES": "2",
            "MASTER_ADDR": f"{ADDRESS}.1",
            "GLOO_SOCKET_IFNAME": A,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert found.returncode == 0, found.stderr
    first, second, third, fourth = found.stdout.split()
    assert first == second != third == fourth
    assert str(Path("/proc/self/ns/net").readlink()) not in {first, third}
