"""The two towers of a contrastive model as two modalities: each sample is one token, the tower's own embedding."""
