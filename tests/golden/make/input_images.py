"""Makes tests/golden/input_images: pictures as callers send them, and what Pillow makes of them.

  python input_images.py OUT      needs numpy, pillow (13.0.0 made what lies here) and safetensors

Each case is a file, with what it decodes to as `expected` in expected.safetensors: RGB, alpha over white, EXIF orientation
applied. `resize` cases are init_image.png resized by Pillow."""
import io
import json
import os
import struct
import sys
import zlib

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
ys, xs = np.mgrid[0:30, 0:44]
rgb = np.stack([(xs * 6) % 256, (ys * 8) % 256, ((xs - 22) ** 2 + (ys - 15) ** 2) // 3 % 256], -1).astype(np.uint8)
alpha = ((xs * 5 + ys * 3) % 256).astype(np.uint8)
smooth = np.stack([xs * 5, ys * 8, (xs + ys) * 3], -1).astype(np.uint8)
cases, expected = [], {}


def flat(image):
    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def put(name, data, tolerance, pixels=None):
    with open(os.path.join(out, name), "wb") as file:
        file.write(data)
    expected[name] = np.ascontiguousarray(flat(Image.open(io.BytesIO(data))) if pixels is None else pixels)
    cases.append({"name": name, "tolerance": tolerance})


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_png(width, height, bits, colour, rows, interlace=0):
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)) +
            chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))) + chunk(b"IEND", b""))


def adam7(pixels):
    """Rows of the seven passes of an interlaced PNG of 8-bit RGB."""
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        part = pixels[y0::dy, x0::dx]
        if part.shape[1]:
            yield from (row.tobytes() for row in part)


picture, rgba = Image.fromarray(rgb), Image.fromarray(np.dstack([rgb, alpha]))
put("rgb8.png", encoded(picture, "PNG"), 0)
put("rgba8.png", encoded(rgba, "PNG"), 1)
put("gray8.png", encoded(picture.convert("L"), "PNG"), 0)
put("gray_alpha8.png", encoded(rgba.convert("LA"), "PNG"), 1)
put("bits1.png", encoded(picture.convert("1"), "PNG"), 0)
palette = picture.quantize(14)
put("palette4.png", encoded(palette, "PNG", bits=4), 0)
put("palette_transparent.png", encoded(palette, "PNG", transparency=bytes(range(0, 224, 16))), 1)
wide = rgb.astype(np.uint16) * 256 + alpha[..., None]
put("rgb16.png", raw_png(44, 30, 16, 2, [row.astype(">u2").tobytes() for row in wide]), 0, np.round(wide / 257).astype(np.uint8))
put("gray16.png", raw_png(44, 30, 16, 0, [row[:, 0].astype(">u2").tobytes() for row in wide]), 0,
    np.repeat(np.round(wide[..., :1] / 257).astype(np.uint8), 3, -1))
put("interlaced.png", raw_png(44, 30, 8, 2, adam7(rgb), 1), 0)
put("color.jpg", encoded(Image.fromarray(smooth), "JPEG", quality=95), 2)
put("subsampled.jpg", encoded(picture, "JPEG", quality=80, subsampling=2), 2)
put("progressive.jpg", encoded(picture, "JPEG", quality=90, progressive=True), 2)
put("gray.jpg", encoded(picture.convert("L"), "JPEG", quality=95), 2)
put("cmyk.jpg", encoded(Image.fromarray(smooth).convert("CMYK"), "JPEG", quality=95), 3)
put("lossy.webp", encoded(picture, "WEBP", quality=90), 2)
put("lossless.webp", encoded(picture, "WEBP", lossless=True), 0)
put("alpha.webp", encoded(rgba, "WEBP", lossless=True, exact=True), 1)
for orientation in range(1, 9):
    put(f"orientation_{orientation}.png", encoded(picture, "PNG", exif=exif(orientation)), 0)
put("orientation_6.jpg", encoded(picture, "JPEG", quality=95, exif=exif(6)), 2)
put("orientation_8.webp", encoded(picture, "WEBP", lossless=True, exif=exif(8)), 0)
refused = {"animated.webp": encoded(picture, "WEBP", save_all=True, append_images=[Image.fromarray(255 - rgb)], lossless=True),
           "image.gif": encoded(picture, "GIF"), "image.bmp": encoded(picture, "BMP")}
for name, data in refused.items():
    with open(os.path.join(out, name), "wb") as file:
        file.write(data)
for width, height in ((64, 64), (20, 15), (88, 31), (44, 90), (13, 30), (300, 7)):
    for method, resample in (("lanczos", Image.LANCZOS), ("nearest", Image.NEAREST)):
        expected[f"{method}_{width}x{height}"] = np.asarray(picture.resize((width, height), resample))
expected["luma"] = np.asarray(picture.convert("L"))
save_file({name: np.ascontiguousarray(value) for name, value in expected.items()}, os.path.join(out, "expected.safetensors"))
with open(os.path.join(out, "manifest.json"), "w") as file:
    json.dump({"about": "Pictures as callers send them, and what Pillow makes of them.", "reference": "Pillow " + Image.__version__,
               "notes": ["tolerance is on 8-bit values; resize cases are of rgb8.png", "refused: files that are no single PNG, JPEG or WebP image"],
               "cases": cases, "refused": list(refused)}, file, indent=1)
    file.write("\n")
