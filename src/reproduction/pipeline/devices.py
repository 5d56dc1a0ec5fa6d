"""Is there a GPU? Asked of the driver, without the seconds that importing torch takes."""

from __future__ import annotations

import ctypes


def gpu_count() -> int:
    """Return the number of GPUs that the CUDA driver of this machine sees, 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
