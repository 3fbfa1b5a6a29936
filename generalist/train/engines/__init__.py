"""Where a step runs: one process, or DeepSpeed on many."""
