"""Text, sub-words, pretrained text encoders, and the summary token, which shares text's rows."""
