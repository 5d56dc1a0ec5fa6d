"""Ten minutes without an answer from ``sacct`` end nothing. The run is started before all other tests."""

from __future__ import annotations

import time

import pytest
from runs import Silence

MINUTES = 10


@pytest.mark.timeout(1500)
def test_a_scheduler_that_does_not_answer_ends_nothing(silence: Silence) -> None:
    while time.monotonic() < silence.started + 60 * MINUTES:
        assert silence.run.process.poll() is None, silence.run.text()[-2000:]
        time.sleep(1)
    silence.flag.unlink()
    assert silence.run.wait(500) == 0, silence.run.text()[-2000:]
    assert silence.project.result("sparsity").status.values.tolist() == [[[[0, 0], [0, 0]]]]
