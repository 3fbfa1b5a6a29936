"""The processes of a run and the machine that they stand on."""
