"""Checks before a run starts: the machine, whether the run fits its devices, how long it takes and what it costs."""
