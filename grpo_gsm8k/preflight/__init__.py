"""Before a run: what the machine has, whether the run fits, how long it will take and what it will cost."""
