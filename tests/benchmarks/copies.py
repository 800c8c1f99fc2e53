"""What may have been done to a picture before it lies in a pool again: 12 transforms, drawn anew for each picture."""

import io

import cv2
import numpy as np
from PIL import Image, ImageFilter, ImageOps


def reencoded(image, random):
    return opened(encoded(image, int(random.integers(40, 76))))


def resized(image, random):
    scale = random.uniform(0.5, 0.8)
    return image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)


def cropped(image, random):
    """90 % of each side, from anywhere."""
    width, height = (round(0.9 * side) for side in image.size)
    left, top = (
        int(random.integers(0, whole - part + 1)) for whole, part in zip(image.size, (width, height), strict=True)
    )
    return image.crop((left, top, left + width, top + height))


def flipped(image, random):
    return ImageOps.mirror(image)


def grey(image, random):
    return image.convert("L").convert("RGB")


def bordered(image, random):
    """White, black, or any colour, 3 to 8 % of the shorter side wide."""
    colour = [(255, 255, 255), (0, 0, 0), tuple(random.integers(0, 256, 3).tolist())][random.integers(3)]
    return ImageOps.expand(image, round(random.uniform(0.03, 0.08) * min(image.size)), colour)


def written_over(image, random):
    """A line of white letters with a dark outline, a twelfth of the height, across most of the width."""
    pixels = np.asarray(image).copy()
    height, width = pixels.shape[:2]
    text = "".join(random.choice(list("abcdefghijklmnopqrstuvwxyz  "), 18))
    (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1, 2)
    scale = min(0.8 * width / wide, height / 12 / high)
    place = (round(0.05 * width), int(random.uniform(0.15, 0.95) * height))
    for colour, thickness in (((20, 20, 20), 3), ((255, 255, 255), 1)):
        cv2.putText(
            pixels, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, max(round(2 * scale * thickness), thickness),
            cv2.LINE_AA,
        )  # fmt: skip
    return Image.fromarray(pixels)


def blurred(image, random):
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.006, 0.012) * min(image.size)))


def brightened(image, random):
    factor = random.uniform(1.2, 1.4) if random.random() < 0.5 else random.uniform(0.6, 0.8)
    return Image.fromarray(np.clip(np.asarray(image) * factor, 0, 255).astype(np.uint8))


def rotated(image, random):
    """3 degrees to either side, with black corners."""
    return image.rotate(3 if random.random() < 0.5 else -3, Image.Resampling.BICUBIC)


def recoloured(image, random):
    """Hue by up to 20 degrees, each channel by up to 15 %."""
    hsv = np.asarray(image.convert("HSV")).copy()
    hsv[..., 0] = (hsv[..., 0].astype(int) + int(random.uniform(-20, 20) / 360 * 256)) % 256
    rgb = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
    return Image.fromarray(np.clip(rgb * random.uniform(0.85, 1.15, 3), 0, 255).astype(np.uint8))


def framed(image, random):
    """In a window on a screen: a title bar with words and buttons, thin sides, a bar below; light or dark."""
    width, height = image.size
    side, head, foot = (round(random.uniform(*share) * height) for share in ((0.01, 0.04), (0.06, 0.12), (0.03, 0.06)))
    light = bool(random.integers(2))
    ground = np.full((height + head + foot, width + 2 * side, 3), 235 if light else 40, np.uint8)
    ink = (60, 60, 60) if light else (220, 220, 220)
    scale = head / 45
    cv2.putText(ground, "picture - viewer", (side + 2, round(head * 0.7)), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1)
    for place in range(3):
        cv2.circle(ground, (width + side - round((place + 0.6) * head), head // 2), head // 4, ink, 1)
    ground[head : head + height, side : side + width] = np.asarray(image)
    return Image.fromarray(ground)


TRANSFORMS = {
    "re-encoded": reencoded,
    "resized": resized,
    "cropped to 90 %": cropped,
    "flipped": flipped,
    "grey": grey,
    "bordered": bordered,
    "written over": written_over,
    "blurred": blurred,
    "brightness": brightened,
    "rotated by 3 degrees": rotated,
    "recoloured": recoloured,
    "framed as on a screen": framed,
}


def encoded(image, quality=90):
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data)).convert("RGB")
