"""The conveyor: order, bounds, and what an error in each stage leads to."""

import signal
import threading
import time
from collections import Counter

import pytest

from gpudecon.engine.conveyor import Conveyor
from gpudecon.errors import DeviceMemoryError, GpudeconError, InputError, RunError


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threading.enumerate()
    yield
    assert threading.enumerate() == before


def test_every_task_goes_through_the_three_stages_in_order():
    written, computed = {}, []

    def compute(task, held):
        computed.append(task)
        return held + 1

    busy = Conveyor(lambda t: t * t, compute, written.__setitem__, readers=3, writers=2, ahead=4, behind=3).run(
        range(50)
    )
    assert computed == list(range(50))
    assert written == {t: t * t + 1 for t in range(50)}
    assert all(0 < fraction <= 1 for fraction in busy.fractions.values())


def test_no_task():
    assert Conveyor(str, max, max).run([]).read == 0


@pytest.mark.parametrize(("readers", "writers", "ahead", "behind"), [(1, 1, 1, 1), (3, 2, 3, 2), (2, 2, 5, 4)])
@pytest.mark.parametrize("slow", ["read", "compute", "write"])
def test_tasks_on_the_way_are_bounded(readers, writers, ahead, behind, slow):
    counted, most, counting = Counter(), Counter(), threading.Lock()

    def change(**by):
        with counting:
            counted.update(by)
            for name, count in counted.items():
                most[name] = max(most[name], count)

    def stage(name, before, after):
        def work(*arguments):
            if name == slow:
                time.sleep(0.004)
            change(**{before: -1} if before else {}, **{after: 1} if after else {})
            return arguments[0]

        return work

    started = []

    def source():
        for task in range(30):
            started.append(task)
            yield task

    def read(task):
        change(read=1)
        return stage("read", None, None)(task)

    conveyor = Conveyor(
        read, stage("compute", "read", "computed"), stage("write", "computed", None),
        readers=readers, writers=writers, ahead=ahead, behind=behind,
    )  # fmt: skip
    conveyor.run(source())
    assert started == list(range(30))
    assert most["read"] <= ahead + 1
    assert most["computed"] <= behind + 1


def test_the_stages_overlap():
    """Each waits for the next one to have begun with an earlier task: one after the other would never end."""
    reading, writing = threading.Event(), threading.Event()

    def read(task):
        if task == 1:
            reading.set()
        return task

    def compute(task, held):
        if task == 0:
            assert reading.wait(10)  # the second is read while the first is computed
        if task == 1:
            assert writing.wait(10)  # the first is written while the second is computed
        return held

    def write(task, result):
        if task == 0:
            writing.set()

    Conveyor(read, compute, write).run(range(2))


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (InputError("too dark"), InputError),
        (DeviceMemoryError("full"), DeviceMemoryError),
        (OSError(28, "No space"), RunError),
    ],
)
def test_the_first_error_names_its_task_and_cancels_the_rest(stage, raised, expected):
    begun = Counter()

    def work(name):
        def run(task, *_):
            begun[name] += 1
            if name == stage and task == 7:
                raise raised
            return task

        return run

    conveyor = Conveyor(work("read"), work("compute"), work("write"), name="tile {}".format, ahead=2, behind=2)
    with pytest.raises(expected, match=r"^tile 7: (too dark|full|No space)") as caught:
        conveyor.run(range(1000))
    assert isinstance(caught.value, GpudeconError)
    assert begun["read"] <= 7 + 2 * (2 + 1)
    assert begun["compute"] <= 7 + 2 + 2
    assert begun["write"] <= 8 + 2


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_an_error_that_is_a_defect_keeps_its_type(stage):
    def broken(task, *_):
        return 1 // (3 - task)

    stages = {name: broken if name == stage else lambda task, *_: task for name in ("read", "compute", "write")}
    with pytest.raises(ZeroDivisionError) as caught:
        Conveyor(**stages).run(range(9))
    assert caught.value.__notes__ == ["in 3"]


def test_what_was_computed_before_an_error_is_written():
    written = []

    def write(task, result):
        time.sleep(0.02)
        written.append(task)

    def compute(task, held):
        if task == 2:
            raise RunError("broken")

    with pytest.raises(RunError):
        Conveyor(lambda task: task, compute, write).run(range(9))
    assert written == [0, 1]


def test_ctrl_c_in_hand(heeding_ctrl_c):
    def compute(task, held):
        if task == 2:
            signal.raise_signal(signal.SIGINT)
        return held

    with pytest.raises(KeyboardInterrupt) as caught:
        Conveyor(lambda task: task, compute, lambda task, result: None).run(range(9))
    assert caught.value.__notes__ == ["in 2"]


def test_stopping_writes_what_is_computed():
    computed, written = [], []

    def compute(task, held):
        computed.append(task)

    def write(task, result):
        time.sleep(0.01)
        written.append(task)

    Conveyor(lambda task: task, compute, write, writers=2, behind=3).run(range(99), lambda: len(computed) == 4)
    assert computed == sorted(written) == [0, 1, 2, 3]
