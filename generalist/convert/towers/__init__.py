"""Published towers: vision transformers of timm and open_clip, CLIP's text side."""
