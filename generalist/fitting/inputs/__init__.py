"""What columns and files become: the modality that reads them, with its settings by a few of its samples."""
