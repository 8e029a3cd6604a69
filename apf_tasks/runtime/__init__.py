"""Where a computation runs: devices, precision, processes that train one model together, progress."""
