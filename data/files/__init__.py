"""Files on disk and far away: tar files, caches, remote places, names that files give each other."""
