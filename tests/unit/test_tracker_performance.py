import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import psutil
import pytest
from tracked_run import end, start, steps, tell, tell_to_end

from jemtrack.events.events import EpochEnd, EpochStart, Measured, Position, Status
from jemtrack.record.jsonl import read_lines
from jemtrack.shared.metrics import check_metrics
from jemtrack.trackers.performance import Gauges, Performance

LIGHT = {"cpu_percent", "memory_mib"}
TICK = 0.03  # seconds that the kernel's count of a process's CPU time may be off
MIB = 1 << 20


@pytest.fixture
def performance(tmp_path) -> Iterator[Callable[..., Performance]]:
    """Makes trackers; their threads end with the test, also where it fails."""
    made = []

    def make(**options) -> Performance:
        path = str(tmp_path / "new" / "performance.jsonl")
        made.append(Performance(**{"path": path, "interval": 0.01, **options}))
        return made[-1]

    yield make
    for tracker in made:
        tracker.close()


def lines(folder) -> list[dict]:
    return [*read_lines(folder / "new" / "performance.jsonl")]


def wait_for(condition) -> None:
    """Wait for what a thread is about to do, however busy the machine is."""
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def is_sampling(tracker) -> bool:
    return bool(tracker._thread) and tracker._thread in threading.enumerate()


def test_samples_are_written_while_training_runs(tmp_path, performance):
    tracker = performance()

    tell(tracker, [start(3), *steps(4, 5)])
    wait_for(lambda: any(line["global_step"] == 5 for line in lines(tmp_path)))
    tracker.close()

    found = lines(tmp_path)
    assert len(found) == len(tracker.samples)
    for line in found:
        assert line["session_id"] == "session-1"
        assert line["seconds"] >= 0
        assert line["metrics"].keys() >= LIGHT
        assert line["metrics"]["memory_mib"] > 10
    assert found[-1]["global_step"] == 5


def test_an_epochs_summary_is_announced_by_the_training_at_its_end(tmp_path, performance):
    tracker = performance()
    announcers = []
    tracker.dispatch = lambda event: announcers.append((threading.current_thread(), event))

    tell(tracker, [start(), *steps(1, 2)])
    wait_for(lambda: len(tracker.samples) >= 3)
    tell_to_end(tracker, [EpochEnd(Position(0, 1), {}, 1, 3), end()])

    ((thread, event),) = announcers
    assert thread is threading.current_thread()
    assert isinstance(event, Measured)
    assert event.step == 3
    check_metrics(event.metrics)
    assert event.metrics.keys() >= {"cpu_percent", "memory_mib", "memory_mib.peak"}
    assert event.metrics["memory_mib"] <= event.metrics["memory_mib.peak"]


def test_a_summary_is_of_the_means_and_peaks_of_the_epochs_samples(tmp_path, performance):
    tracker = performance(history=3)
    samples = [(100.0, 1.0), (1.0, 2.0), (2.0, 3.0), (6.0, 3.5)]
    for memory, read in samples:
        tracker.samples.append({"memory_mib": memory, "read_mib": read})
        tracker._new += 1

    assert tracker._summary() == {"memory_mib": 3.0, "memory_mib.peak": 6.0, "read_mib": 3.5}
    assert tracker._summary() == {}


def test_an_epoch_without_samples_or_that_failed_announces_nothing(performance):
    tracker = performance(interval=3600.0)
    tracker.dispatch = pytest.fail

    tell(tracker, [start(), *steps(1, 3)])
    tracker._sample(SimpleNamespace(write=lambda entry: None))
    tell_to_end(tracker, [EpochEnd(Position(), {}, 1, 4, Status.FAILED), end()])

    assert len(tracker.samples) == 1


def test_memory_is_bounded(tmp_path, performance):
    tracker = performance(history=2, light=True)

    tell(tracker, [start()])
    wait_for(lambda: len(lines(tmp_path)) > 4)
    tracker.close()

    assert len(tracker.samples) == 2


@pytest.mark.parametrize("events", [[], [start()], [start(), *steps(1, 3), end()]])
def test_reading_ends_with_the_run_on_every_way_out(tmp_path, performance, events):
    tracker = performance()

    tell(tracker, events)
    assert is_sampling(tracker) == bool(events)
    tracker.close()

    assert not is_sampling(tracker)


def test_what_goes_wrong_in_the_thread_is_said_once_and_ends_it(tmp_path, performance, caplog):
    (tmp_path / "new").write_text("a file where the folder should be")

    with caplog.at_level(logging.WARNING, logger="jemtrack"):
        tracker = performance()
        tell_to_end(tracker, [start(), *steps(1, 3), end()])

    assert [message.partition(":")[0] for message in caplog.messages] == [
        "Performance stopped reading, training continues"
    ]


def test_a_session_adds_to_the_samples_of_the_one_before(tmp_path, performance):
    for session in ("session-1", "session-2"):
        tracker = performance(light=True)
        tell(tracker, [start(session=session)])
        wait_for(lambda tracker=tracker: tracker.samples)
        tracker.close()

    assert {line["session_id"] for line in lines(tmp_path)} == {"session-1", "session-2"}


def test_light_reads_the_process_alone():
    assert Gauges(light=True).read().keys() == LIGHT


def test_the_machine_is_read_beside_the_process():
    before = psutil.virtual_memory().used / MIB
    found = Gauges(light=False).read()

    assert 0 <= found["machine_cpu_percent"] <= 100
    # Other processes may take or free memory in between.
    assert found["machine_memory_mib"] == pytest.approx(before, rel=0.2)
    check_metrics(found)


def test_children_count_with_their_parent(monkeypatch):
    monkeypatch.setattr("jemtrack.trackers.performance._REST", 0)
    gauges = Gauges(light=False)
    alone = gauges.read()["memory_mib"]
    code = "block = bytearray(200 << 20); print('ready', flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        child.stdout.readline()
        together = gauges.read()["memory_mib"]
        lightly = Gauges(light=True).read()["memory_mib"]
        child.communicate(b"\n")

    assert together - alone > 190
    assert lightly - alone < 100
    assert gauges.read()["memory_mib"] - alone < 100


def test_children_are_searched_for_seldom_where_it_takes_long(monkeypatch):
    searches = []

    def search(process, recursive):
        searches.append(process)
        until = time.thread_time() + 0.1
        while time.thread_time() < until:
            pass
        return []

    monkeypatch.setattr(psutil.Process, "children", search)
    gauges = Gauges(light=False)
    for _ in range(5):
        gauges.read()

    assert len(searches) == 1


def test_a_busy_process_shows_its_load():
    before, started = time.process_time(), time.perf_counter()
    gauges = Gauges(light=True)
    used, waited = -time.process_time(), -time.perf_counter()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    used, waited = used + time.process_time(), waited + time.perf_counter()
    found = gauges.read()["cpu_percent"] / 100
    used_at_most, waited_at_most = time.process_time() - before, time.perf_counter() - started

    # Other work on the machine may hold the process up: its own clocks tell by how much.
    assert (used - TICK) / waited_at_most <= found <= (used_at_most + TICK) / waited


def test_what_is_written_is_counted_from_the_start(tmp_path):
    # Not every system counts, nor every file system.
    counters = getattr(psutil.Process(), "io_counters", lambda: SimpleNamespace(write_bytes=0))
    (tmp_path / "before").write_bytes(bytes(MIB))
    gauges = Gauges(light=False)
    before = counters().write_bytes
    with (tmp_path / "file").open("wb") as file:
        file.write(bytes(3 * MIB))
        file.flush()
        os.fsync(file.fileno())

    found = gauges.read()

    counted = (counters().write_bytes - before) / MIB
    assert found.get("written_mib", 0.0) == pytest.approx(counted, abs=0.5)


class Cuda:
    """A stand-in for torch.cuda, where a driver may not tell the load."""

    def __init__(self, *, initialized=True, told=True) -> None:
        self.initialized, self.told = initialized, told

    def is_initialized(self):
        return self.initialized

    def current_device(self):
        return 1

    def memory_reserved(self, device):
        return (device + 1) << 30

    def mem_get_info(self, device):
        if not self.told:
            raise RuntimeError("the driver does not know")
        return 1 << 30, (device + 4) << 30

    def utilization(self, device):
        if not self.told:
            raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")
        return 40 + device


@pytest.mark.parametrize(
    ("cuda", "shown"),
    [
        (Cuda(), {"gpu_memory_mib": 2048.0, "gpu_percent": 41.0, "machine_gpu_memory_mib": 4096.0}),
        (Cuda(told=False), {"gpu_memory_mib": 2048.0}),
        (Cuda(initialized=False), {}),
    ],
)
def test_the_gpu_of_the_training_is_read_where_one_is_in_use(monkeypatch, cuda, shown):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    gauges = Gauges(light=False)
    gauges.follow_device()

    found = gauges.read()

    assert {name: value for name, value in found.items() if "gpu" in name} == shown


def test_pytorch_is_not_imported_for_its_gpu(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    gauges = Gauges(light=False)
    gauges.follow_device()

    gauges.read()

    assert "torch" not in sys.modules


def test_the_device_is_taken_when_an_epoch_starts(tmp_path, performance, monkeypatch):
    tracker = performance()
    tell(tracker, [start()])
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=Cuda()))

    tell_to_end(tracker, [EpochStart(Position())])

    assert tracker._gauges._device == 1
