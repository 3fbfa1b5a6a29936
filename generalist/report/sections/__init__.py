"""The sections of the page, a file each, and how an input of any modality is shown."""
