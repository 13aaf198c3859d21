"""The model card of a pack: what it is, what it was trained on, what it cannot do."""

from __future__ import annotations

from ..core.manifest import Manifest

__all__ = ["card"]


def card(manifest: Manifest, precision: str) -> str:
    """Markdown text, from the facts of the manifest alone."""
    steps = len(manifest.times)
    total = sum(manifest.parameters[name] for name in ("encode", "predict", "denoise") if name in manifest.parameters)
    cost = manifest.macs_per_pixel["fused"] / 1000
    return f"""# {manifest.name}

A {manifest.model.upper()} restorer for the task {", ".join(manifest.tasks)}: an initial predictor, a frozen diffusion
prior of image texture with guidance adapters, and a semantic encoder. {steps} deterministic steps,
{total:,} parameters, {cost:.1f} kMAC per pixel in all, {precision}.

## Use

`pocketprior restore --pack FOLDER PHOTO`. Strength 0 gives the predictor alone (highest PSNR, softest), strength 1 adds
texture. The texture is plausible, not measured: do not use it as evidence of what was in the scene.

## Training

Initial predictor and adapters: pairs made from clean photos by the degradations of the task. Prior and semantic
encoder: the clean photos alone. Only photos whose licence lets weights be released were used:

- CID22 (Cloudinary Image Dataset '22), CC BY-SA 4.0
- CLIC 2025, Unsplash licence
- wallpapers of the Budgie and elementary projects, CC0, Unsplash and Pexels licences
- DreamBooth data set (Ruiz et al., CVPR 2023), CC BY 4.0 and Unsplash licence

## Limits

Trained on about 75 million pixels of daylight photos: faces and text get no special care. Noise that is correlated
between pixels (from strong in-camera processing) is seen as texture. Made by checkpoint
{manifest.made_by["checkpoint"][:16]}.
"""
