"""Which tokens of the input an answer rests on: a trained mask and attention rollout, and how faithful both are."""
