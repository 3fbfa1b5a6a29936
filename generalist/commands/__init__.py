"""One file a command: `add_arguments(parser)` (imports nothing heavy) and `run(args)`."""
