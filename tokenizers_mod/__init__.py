"""One file a modality with both halves: raw input -> Span on the CPU, and Span -> tokens on the device."""

if (
    __name__ == "tokenizers_mod"
):  # an old import in a checkout: nothing of generalist.tokenizers_mod is loaded twice (data/base/moved.py)
    __path__.clear()
