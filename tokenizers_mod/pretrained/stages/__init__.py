"""The first stages of a pretrained picture network: pictures as one token each."""
