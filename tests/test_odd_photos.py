"""Every kind of odd or damaged photo: what comes out of it, or why it is left out."""

import io
import struct
import warnings
import zlib

import archives
import decoding
import get_photos
import numpy as np
import pytest
from photo_kit import photo, picture, saved, test_files, train_files, write, zipped
from PIL import Image

RED, BLUE, WHITE = (200, 30, 30), (30, 30, 200), (255, 255, 255)


def plain(mode="RGB", size=(60, 40), color=RED):
    """Return a picture in a single color."""
    return Image.new("RGB", size, color).convert(mode)


def two_halves(size=(60, 40)):
    """Return a picture that is red on the left and blue on the right."""
    image = plain(size=size)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def noisy(size=(64, 64)):
    """Return a picture that no two neighboring pixels of are alike."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))


def clear(color):
    """Return a picture that is transparent, with a color underneath."""
    return Image.new("RGBA", (60, 40), (*color, 0))


def turned():
    """Return a JPEG stored on its side: upright, it is red at the top and blue at the bottom."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter, clockwise
    image = plain(size=(40, 60), color=BLUE)
    image.paste(RED, (0, 0, 40, 30))
    return saved(image.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=95)


def png_claiming(width, height):
    """Return a PNG file whose header claims a size that its data does not have."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def without_jfif(data):
    """Return a JPEG without the header that the usual clean-up looks for."""
    assert data[6:10] == b"JFIF"
    return data[:2] + data[4 + struct.unpack(">H", data[4:6])[0] :]


def part_of(data, share):
    """Return the beginning of a file."""
    return data[: int(len(data) * share)]


def with_exif(data, exif):
    """Return a JPEG with the given bytes as its EXIF data."""
    segment = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def two_frames(form, first=RED, second=BLUE):
    """Return a file with two pictures in it."""
    return saved(plain(), form, save_all=True, append_images=[plain(color=second)])


PNG, NOISE = saved(plain(), "PNG"), saved(noisy((80, 80)), quality=90)

# What is in a file named .jpg, and the color that must come out.
KEPT = {
    "plain": (saved(plain()), RED),
    "gray": (saved(plain("L")), plain("L").convert("RGB").getpixel((0, 0))),
    "CMYK": (saved(plain("CMYK")), RED),
    "progressive": (saved(plain(), progressive=True), RED),
    "no JFIF in its header": (without_jfif(saved(plain())), RED),
    "EXIF that is spoiled": (with_exif(saved(plain()), b"MM\0*\0\0\0\x08\xff\xff garbage"), RED),
    "EXIF that is empty": (with_exif(saved(plain()), b""), RED),
    "a comment": (saved(plain(), comment=b"x" * 5000), RED),
    "rubbish after its end": (saved(plain()) + b"\0" * 2226, RED),
    "extraneous bytes before its end": (saved(plain())[:-2] + b"\0" * 2226 + b"\xff\xd9", RED),
    "no end marker": (saved(two_halves())[:-2], ((200 + 30) / 2, 30, (200 + 30) / 2)),
    "no end marker, in white": (saved(plain(color=WHITE))[:-2], WHITE),
    "no end marker, in CMYK": (saved(plain("CMYK"))[:-2], RED),
    "PNG": (PNG, RED),
    "PNG with a wrong checksum": (PNG[:-16] + b"1234" + PNG[-12:], RED),
    "PNG with a palette": (saved(plain("P"), "PNG"), RED),
    "PNG with a transparent palette": (saved(plain("P"), "PNG", transparency=0), None),
    "PNG with alpha": (saved(clear(BLUE), "PNG"), WHITE),
    "PNG in gray with alpha": (saved(clear(BLUE).convert("LA"), "PNG"), WHITE),
    "PNG with a transparent color": (saved(plain(), "PNG", transparency=RED), WHITE),
    "PNG in black and white": (saved(Image.new("1", (60, 40), 1), "PNG"), WHITE),
    "PNG with 16 bits": (
        saved(Image.fromarray(np.full((40, 60), 128 * 256, np.uint16)), "PNG"),
        (128, 128, 128),
    ),
    "BMP": (saved(plain(), "BMP"), RED),
    "GIF": (saved(plain("P"), "GIF"), RED),
    "GIF that moves": (two_frames("GIF"), RED),
    "WebP": (saved(plain(), "WEBP"), RED),
    "WebP with alpha": (saved(clear(BLUE), "WEBP", lossless=True), WHITE),
    "WebP that moves": (two_frames("WEBP"), RED),
    "TIFF": (saved(plain(), "TIFF"), RED),
    "MPO, as from a stereo camera": (two_frames("MPO"), RED),
    "1 x 1": (saved(plain(size=(1, 1))), RED),
    "1 x 1 in a GIF": (saved(plain("L", size=(1, 1)), "GIF"), (81, 81, 81)),
    "3000 x 1": (saved(plain(size=(3000, 1))), RED),
    "1 x 3000": (saved(plain(size=(1, 3000))), RED),
    "8000 x 8000": (lambda: saved(plain(size=(8000, 8000))), RED),
    "8000 x 8000 in gray PNG": (lambda: saved(Image.new("L", (8000, 8000), 77), "PNG"), (77,) * 3),
}

LEFT_OUT = {
    "empty": (b"", "empty file"),
    "a single byte": (b"\xff", "not a picture"),
    "text": (b"This is no photo.", "not a picture"),
    "a web page": (b"<!DOCTYPE html><html>404</html>", "not a picture"),
    "zeros": (bytes(5000), "not a picture"),
    "a drawing in SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a picture"),
    "PDF": (b"%PDF-1.7 cats", "not a picture"),
    "PostScript, which would start a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a picture"),
    "a zip archive": (zipped({"cat.0.jpg": photo()}), "not a picture"),
    "only the first bytes of a JPEG": (NOISE[:20], "not a picture"),
    "only the header of a JPEG": (
        NOISE[: NOISE.index(b"\xff\xda") + 14],
        "cut short: 0 of 80 rows",
    ),
    "a JPEG cut at 30 %": (part_of(NOISE, 0.3), "cut short"),
    "a JPEG cut at 60 %": (part_of(NOISE, 0.6), "cut short"),
    "a gray JPEG cut at 60 %": (part_of(saved(noisy((80, 80)).convert("L")), 0.6), "cut short"),
    "a CMYK JPEG cut at 60 %": (part_of(saved(noisy((80, 80)).convert("CMYK")), 0.6), "cut short"),
    "a JPEG of 0 x 0": (NOISE.replace(struct.pack(">HH", 80, 80), bytes(4), 1), "not a picture"),
    "a cut PNG": (part_of(saved(noisy(), "PNG"), 0.5), "damaged"),
    "a cut BMP": (part_of(saved(noisy(), "BMP"), 0.5), "damaged"),
    "a cut GIF": (part_of(saved(noisy(), "GIF"), 0.3), "damaged"),
    "a cut WebP": (part_of(saved(noisy(), "WEBP"), 0.5), "damaged"),
    "PNG with spoiled data": (PNG.replace(b"IDAT\x78", b"IDAT\xff"), "damaged"),
    "PNG with too little data": (png_claiming(500, 500), "damaged"),
    "30000 x 30000": (png_claiming(30000, 30000), "too many pixels"),
    "12000 x 12000": (png_claiming(12000, 12000), "too many pixels"),
}


def check(folder, data):
    """Put data among good photos as cat.77.jpg, run step 0, and return its Photos."""
    data = data() if callable(data) else data
    write(folder, train_files(3) | test_files(1) | {"train/cat.77.jpg": data})
    return get_photos.get_photos(folder)


@pytest.mark.parametrize("kind", KEPT)
def test_good_photos_in_odd_clothing_are_kept(kind, tmp_path, capfd):
    data, color = KEPT[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photos = check(tmp_path, data)
        pixels = get_photos.load_photos(photos.train_folder, ["cat.77.jpg"], size=(20, 10))
    assert photos.left_out == {} and "cat.77.jpg" in photos.train_files
    assert pixels.shape == (1, 10, 20, 3) and pixels.dtype == np.uint8
    if color:
        np.testing.assert_allclose(pixels.mean(axis=(0, 1, 2)), color, atol=4)
    output, errors = capfd.readouterr()  # of the C libraries as well
    assert errors == "" and "orrupt" not in output


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_cannot_be_decoded_is_left_out_with_a_reason(kind, tmp_path, capfd):
    data, reason = LEFT_OUT[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photos = check(tmp_path, data)
    assert photos.train_files == [
        "cat.0.jpg",
        "cat.1.jpg",
        "cat.2.jpg",
        "dog.0.jpg",
        "dog.1.jpg",
        "dog.2.jpg",
    ]
    assert list(photos.left_out) == ["train/cat.77.jpg"]
    assert reason in photos.left_out["train/cat.77.jpg"]
    assert (tmp_path / "train/cat.77.jpg").read_bytes() == data
    output, errors = capfd.readouterr()
    assert f"left out: 1 file (train/cat.77.jpg: {reason}" in output and errors == ""


def test_exif_turns_the_photo_upright(tmp_path):
    write(tmp_path, {"cat.0.jpg": turned()})
    pixels = get_photos.load_photos(tmp_path, ["cat.0.jpg"], size=(8, 12))[0]
    np.testing.assert_allclose(pixels[:4].mean(axis=(0, 1)), RED, atol=6)
    np.testing.assert_allclose(pixels[-4:].mean(axis=(0, 1)), BLUE, atol=6)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.85, 0.95, 0.999])
def test_a_photo_that_is_nearly_whole_loses_only_its_missing_rows(share, progressive, tmp_path):
    whole = noisy((200, 200)).resize((100, 100))
    data = saved(whole, quality=95, progressive=progressive)
    write(tmp_path, {"whole.jpg": data, "cut.jpg": part_of(data, share)})
    cut = decoding.decode(tmp_path / "cut.jpg", (100, 100))
    assert 0.75 * 100 <= cut.height <= 100 and cut.width == 100
    assert cut.height == 100 or not progressive
    if not progressive:  # what is shown is what was there: no gray bar at the bottom
        rows = cut.height - 20  # the last blocks are smeared
        there = decoding.decode(tmp_path / "whole.jpg", (100, 100)).crop((0, 0, 100, rows))
        np.testing.assert_array_equal(np.asarray(cut)[:rows], np.asarray(there))


def test_the_line_between_kept_and_left_out_is_three_quarters_of_the_rows(tmp_path):
    data = saved(noisy((80, 400)), quality=90)
    for percent in range(60, 95, 2):
        write(tmp_path, {f"{percent}.jpg": part_of(data, percent / 100)})
    fault = {p: get_photos.examine(tmp_path / f"{p}.jpg")[1] for p in range(60, 95, 2)}
    assert all(fault[percent].startswith("cut short") for percent in range(60, 72, 2))
    assert not any(fault[percent] for percent in range(80, 95, 2))


def test_a_large_jpeg_is_decoded_at_reduced_scale(tmp_path):
    write(tmp_path, {"cat.0.jpg": saved(plain(size=(4000, 3000)))})
    assert decoding.decode(tmp_path / "cat.0.jpg", (128, 128)).size == (500, 375)


def test_a_photo_is_never_decoded_smaller_than_asked_for(tmp_path):
    write(tmp_path, {"cat.0.jpg": saved(plain(size=(260, 258)))})
    assert decoding.decode(tmp_path / "cat.0.jpg", (128, 128)).size == (130, 129)
    assert decoding.decode(tmp_path / "cat.0.jpg", (140, 20)).size == (260, 258)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_scaling_down_is_anti_aliased(form, tmp_path):
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255  # one pixel wide: anything but averaging gives black, white or bands
    write(tmp_path, {"cat.0.jpg": saved(Image.fromarray(stripes), form)})
    pixels = get_photos.load_photos(tmp_path, ["cat.0.jpg"], size=(128, 128))
    assert abs(pixels.astype(int) - 127).max() < 25


def test_photos_come_in_the_order_asked_for(tmp_path):
    names = [f"cat.{n}.jpg" for n in range(150)]  # more than a thread takes at a time
    shades = {name: saved(plain(color=(n, n, n))) for n, name in enumerate(names)}
    write(tmp_path, shades)
    order = np.random.default_rng(0).permutation(150)
    pixels = get_photos.load_photos(tmp_path, [names[n] for n in order], size=(3, 2))
    assert pixels.shape == (150, 2, 3, 3)
    np.testing.assert_allclose(pixels.mean(axis=(1, 2, 3)), order, atol=1)
    assert get_photos.load_photos(tmp_path, [], size=(3, 2)).shape == (0, 2, 3, 3)


def test_a_photo_that_was_spoiled_after_the_check_is_named(tmp_path):
    write(tmp_path, {"cat.0.jpg": photo(), "cat.1.jpg": b""})
    with pytest.raises(archives.PhotosError, match=r"cat\.1\.jpg: empty file.*run step 0 again"):
        get_photos.load_photos(tmp_path, ["cat.0.jpg", "cat.1.jpg"])
    with pytest.raises(archives.PhotosError, match=r"cat\.9\.jpg.*run step 0 again"):
        get_photos.load_photos(tmp_path, ["cat.9.jpg"])


def test_the_usual_clean_up_would_throw_away_what_is_kept_here(tmp_path):
    """Microsoft's archive with its known defects: only the truly broken files are left out."""
    files, good, no_jfif = {}, 0, 0
    for label, number in (("Cat", 666), ("Dog", 11702)):
        files[f"PetImages/{label}/{number}.jpg"] = b"" if label == "Cat" else photo()[:150]
        files[f"PetImages/{label}/Thumbs.db"] = b"\xd0\xcf\x11\xe0"
        for number, (data, _) in enumerate(KEPT.values()):
            if not callable(data):
                files[f"PetImages/{label}/{number}.jpg"] = data
                good += 1
                no_jfif += b"JFIF" not in data[:12]
    write(tmp_path, {"kagglecatsanddogs_5340.zip": zipped(files)})
    photos = get_photos.get_photos(tmp_path)
    assert len(photos.train_files) + len(photos.test_files) == good
    assert no_jfif > good / 3
    reasons = sorted(reason.split(":")[0].split(" (")[0] for reason in photos.left_out.values())
    assert len(reasons) == 2 and "empty file" in reasons


def test_libjpeg_does_complain_about_such_files():
    """The extraneous bytes of KEPT are what TensorFlow prints "Corrupt JPEG data" for."""
    data = KEPT["extraneous bytes before its end"][0]
    assert data.count(b"\0" * 2226) == 1 and Image.open(io.BytesIO(data)).size == (60, 40)


def test_every_picture_mode_becomes_rgb():
    for mode in (
        "1",
        "L",
        "P",
        "RGB",
        "RGBA",
        "CMYK",
        "YCbCr",
        "HSV",
        "I",
        "F",
        "LA",
        "PA",
        "I;16",
    ):
        image = (
            picture().convert("L").convert(mode)
            if mode in ("I;16", "PA")
            else picture(0, mode=mode)
        )
        assert decoding.to_rgb(image).mode == "RGB", mode
