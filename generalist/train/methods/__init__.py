"""Trainings that are more than the law: what each adds to the loss of a step, by an explicit table."""
