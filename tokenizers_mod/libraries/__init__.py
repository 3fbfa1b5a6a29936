"""Networks of other libraries behind one interface: timm, transformers and open_clip, their weights and pixels."""
