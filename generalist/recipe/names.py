"""The recipes by name: where each is, and what it says of itself; imports nothing."""

RECIPES: dict[str, str] = {
    "demo": "generalist.recipes.demo:demo",
    "starter": "generalist.recipes.starter:starter",
    "uni_perceiver_tiny": "generalist.recipes.uni_perceiver_tiny:uni_perceiver_tiny",
    "uni_perceiver_base": "generalist.recipes.uni_perceiver:uni_perceiver_base",
    "uni_perceiver_large": "generalist.recipes.uni_perceiver:uni_perceiver_large",
    "uni_perceiver_moe_base": "generalist.recipes.uni_perceiver:uni_perceiver_moe_base",
    "uni_perceiver_base_stage2": "generalist.recipes.uni_perceiver:uni_perceiver_base_stage2",
    "uni_perceiver_large_stage2": "generalist.recipes.uni_perceiver:uni_perceiver_large_stage2",
    "uni_perceiver_moe_base_stage2": "generalist.recipes.uni_perceiver:uni_perceiver_moe_base_stage2",
    "detect_tiny": "generalist.recipes.detect_tiny:detect_tiny",
    "segment_tiny": "generalist.recipes.detect_tiny:segment_tiny",
    "uni_perceiver_v2_base": "generalist.recipes.uni_perceiver_v2:uni_perceiver_v2_base",
    "uni_perceiver_v2_large": "generalist.recipes.uni_perceiver_v2:uni_perceiver_v2_large",
    "uni_perceiver_v2_towers": "generalist.recipes.uni_perceiver_v2:uni_perceiver_v2_towers",
}

ABOUT: dict[str, str] = {
    "demo": "nine tasks over six modalities, one encoder, one likelihood",
    "starter": "icons and names, and a little of every other modality, bound by frozen words",
    "uni_perceiver_tiny": "Uni-Perceiver v1 tiny: classification, masked words and captioning, 7 tasks",
    "uni_perceiver_base": "Uni-Perceiver v1 base: 16 tasks over images, videos and text",
    "uni_perceiver_large": "Uni-Perceiver v1 large: 16 tasks over images, videos and text",
    "uni_perceiver_moe_base": "Uni-Perceiver v1 base with experts: 16 tasks over images, videos and text",
    "uni_perceiver_base_stage2": "Uni-Perceiver v1 base: 16 tasks over images, videos and text, second stage",
    "uni_perceiver_large_stage2": "Uni-Perceiver v1 large: 16 tasks over images, videos and text, second stage",
    "uni_perceiver_moe_base_stage2": "Uni-Perceiver v1 base with experts: 16 tasks over images, videos and text, "
    "second stage",
    "detect_tiny": "blood cells detected: region proposals named by likelihood",
    "segment_tiny": "things in photographs outlined: region proposals with masks, named by likelihood",
    "uni_perceiver_v2_base": "Uni-Perceiver v2 base: regions by Swin, RoBERTa texts, a 6-layer decoder with experts",
    "uni_perceiver_v2_large": "Uni-Perceiver v2 large: regions by Swin, RoBERTa texts, a 6-layer decoder with experts",
    "uni_perceiver_v2_towers": "Uni-Perceiver v2 from two towers: init=DIR or encoders of the zoo, a 6-layer "
    "decoder with experts",
}
