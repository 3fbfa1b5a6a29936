"""How much a step of many samples and members takes, from steps of a few."""
