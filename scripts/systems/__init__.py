"""Published systems out of the project's parts, one file a system: what `scripts.parity_systems` compares."""
