"""The methods of `compress`, a file each or a few that are alike."""
