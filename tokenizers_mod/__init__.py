"""One file a modality with both halves: raw input -> Span on the CPU, and Span -> tokens on the device."""
