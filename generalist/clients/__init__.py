"""Other packages' doors: scikit-learn, the language evaluation harness, CLIP_benchmark."""
