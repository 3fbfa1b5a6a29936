"""Contrastive models whole: both towers as modalities of one model, whose encoder has no layers yet."""
