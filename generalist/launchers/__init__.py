"""torchrun and DeepSpeed's launcher for runs that may be preempted; run with `python -m`."""
