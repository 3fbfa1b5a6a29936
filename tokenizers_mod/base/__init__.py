"""What every modality shares, and the one table of modalities."""
