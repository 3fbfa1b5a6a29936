"""What a run writes to go on from: checkpoints, their manifests, the files it owns."""
