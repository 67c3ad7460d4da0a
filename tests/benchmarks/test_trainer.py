import time
from itertools import count, islice

import torch

from benchmarks.networks import Setting
from benchmarks.trainer import Throttle, fixed_images


def test_items_do_not_arrive_faster_than_the_rate():
    start = time.perf_counter()
    assert list(islice(Throttle(count(), 0.02), 5)) == [0, 1, 2, 3, 4]
    assert time.perf_counter() - start >= 5 * 0.02


def test_what_arrived_while_nobody_asked_is_there_at_once_but_no_more_than_the_queue_holds(monkeypatch):
    now, slept = [0.0], []
    monkeypatch.setattr("benchmarks.trainer.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("benchmarks.trainer.time.sleep", slept.append)
    items = Throttle(count(), 1.0, ahead=2)
    now[0] = 100.0
    for _ in range(4):
        next(items)
    assert slept == [0.0, 0.0, 1.0, 2.0]


def test_images_of_the_trainer_are_in_channels_last_order_and_in_range():
    images, labels = fixed_images(Setting(2, 8))
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (images.dtype, float(images.max()) <= 1, tuple(labels.shape)) == (torch.float32, True, (2,))
