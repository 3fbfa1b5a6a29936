"""The model folder of `starter` (`generalist.shipped`); README.md is its card."""
