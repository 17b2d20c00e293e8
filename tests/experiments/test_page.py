"""The page in a browser: what is seen, by mouse, by touch and by keyboard, on a desk and on a phone.

A page of a few small pictures is made here. `VIZSYNTH_PAGE=out/index.html` (or several, as in PATH) has
that one looked at, too; `VIZSYNTH_SCREENSHOTS=DIR` keeps what was seen. The browser is the system's Chromium,
or what `CHROMIUM` names.
"""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from experiments import gallery

pytestmark = pytest.mark.slow

GIVEN = [path for path in os.environ.get("VIZSYNTH_PAGE", "").split(os.pathsep) if path]
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
HANDLE = 24  # pixels of the divider and its handle, on either side
COLORS = {"photo": (200, 40, 40), "saliency": (40, 40, 200), "lrp": (40, 160, 40)}
ROWS = {"S1": "the first thing", "S2": "the second", "B1": "something that is nowhere"}

# The ratio of Web Content Accessibility Guidelines 2.1, of all text that is drawn.
CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = color => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255);
  };
  const over = (top, below) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * below[i]);
  const behind = element => {
    if (element === null) return [1, 1, 1];
    const color = rgba(getComputedStyle(element).backgroundColor);
    return color[3] === 1 ? color : over(color, behind(element.parentElement));
  };
  const light = color => color.slice(0, 3)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement.closest("select") ?? walk.currentNode.parentElement;
    const drawn = element.checkVisibility() && !element.matches("script, style, noscript");
    if (!walk.currentNode.data.trim() || !drawn) continue;
    const below = behind(element), ink = over(rgba(getComputedStyle(element).color), below);
    const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), walk.currentNode.data.trim().slice(0, 60)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        pytest.fail("the page is looked at with playwright: pip install 'vizsynth[browser]'")
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, (shutil.which(name) for name in names if name)), None)
    if path is None:
        pytest.fail("there is no Chromium: apt-get install -y chromium, or name one by CHROMIUM=PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def lay(path: Path, color: tuple[int, int, int], size: tuple[int, int] = (120, 90)) -> None:
    """Write a picture that differs from place to place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = np.linspace(0.5, 1, size[0])[None, :, None] * np.ones((size[1], 1, 1))
    Image.fromarray((shade * color).astype(np.uint8)).save(path)


def made_here(out: Path) -> Path:
    """Write the page of two figures and of two photos that are compared."""
    for name, seconds in (("one", 1.5), ("two", 70)):
        for i in range(3):
            size = (900, 300) if i == 2 else (120, 90)
            lay(out / name / f"part_{i}.png", (60 * i + 60, 100, 200), size)
        (out / name / "caption.md").write_text("Of `code` and [a link](https://example.org). More of it.")
        made = {"command": "python -m experiments." + name * 30, "seconds": seconds}
        (out / name / "made.json").write_text(json.dumps(made))
    (out / "one" / "one.json").write_text("{}")
    for photo, stems in {"cat": ("photo", "saliency", "lrp"), "dog": ("photo", "lrp")}.items():
        folder = out / "two" / "compare" / photo
        for stem in stems:
            lay(folder / f"{stem}.png", COLORS[stem], (120, 90) if photo == "cat" else (90, 120))
        (folder / "labels.json").write_text(json.dumps({stem: stem for stem in stems}))
    themes = {"First": [gallery.Entry("one", "One", ("S1", "S2"))], "Second": [gallery.Entry("two", "Two")]}
    return gallery.build(out, themes, rows=ROWS)


@pytest.fixture(scope="module", params=["made here", *GIVEN])
def page_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "made here":
        return made_here(tmp_path_factory.mktemp("page"))
    path = Path(request.param).resolve()
    assert path.is_file(), f"VIZSYNTH_PAGE names {request.param}, which is not there"
    return path


Open = Callable[..., Any]


@pytest.fixture
def opened(chromium: Any, page_file: Path) -> Iterator[Open]:
    """Open the page; at the end nothing was complained of."""
    contexts, complaints = [], []

    def open_page(device: str = "desk", look: str = "light", script: bool = True) -> Any:
        width, height = SIZES[device]
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=look,
            java_script_enabled=script,
            has_touch=device == "phone",
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto(page_file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def compared(page: Any) -> Any:
    """Return the stage of the comparison, in sight."""
    stage = page.locator("#compare .stage")
    if stage.count() == 0:
        pytest.skip("nothing is compared on this page")
    stage.scroll_into_view_if_needed()
    page.evaluate("Promise.all([...document.querySelectorAll('.stage img')].map(image => image.decode()))")
    return stage


def seen(what: Any) -> np.ndarray:
    """Return the pixels of an element as they are drawn."""
    with Image.open(io.BytesIO(what.screenshot())) as image:
        return np.asarray(image.convert("RGB"), np.int16)


def changed(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Return where, as fractions of the width, the columns begin and end that have changed."""
    other = (np.abs(before - after) > 8).any(axis=2)
    columns = np.flatnonzero(other.mean(axis=0) > 0.1)  # a row at the edge may be another after scrolling
    assert columns.size, "nothing has changed"
    assert columns.size > 0.5 * (columns[-1] - columns[0]), "only the divider has moved"
    return columns[0] / before.shape[1], (columns[-1] + 1) / before.shape[1]


@pytest.mark.parametrize("device", SIZES)
def test_every_picture_is_there_and_told(opened: Open, device: str) -> None:
    page = opened(device)
    broken = page.evaluate("""async () => {
      const broken = [];
      for (const image of document.images) {
        image.scrollIntoView();  // lazy ones are loaded where they are seen
        try { await image.decode(); } catch { broken.push(image.src); }
        if (!image.naturalWidth || !image.checkVisibility() || !image.alt.trim()) broken.push(image.src);
      }
      return broken;
    }""")
    assert broken == []
    assert page.evaluate("document.images.length") > 1


@pytest.mark.parametrize("device", SIZES)
def test_nothing_lies_beside_the_page(opened: Open, device: str) -> None:
    page = opened(device)
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[device][0]
    beside = page.evaluate("""() => [...document.querySelectorAll("body *")]
      .filter(element => element.checkVisibility() && !element.closest(".scroll, dialog"))
      .filter(element => element.getBoundingClientRect().right > innerWidth + 0.5)
      .map(element => element.outerHTML.slice(0, 99))""")
    assert beside == []


def test_links_lead_somewhere(opened: Open, page_file: Path) -> None:
    page = opened()
    links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.getAttribute('href'))")
    assert links
    ids = set(page.eval_on_selector_all("[id]", "all => all.map(one => one.id)"))
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    for link in links:
        if not link.startswith(("#", "https://", "http://")):
            assert (page_file.parent / unquote(link)).is_file(), link


@pytest.mark.parametrize("device", SIZES)
def test_the_divider_is_dragged(opened: Open, device: str) -> None:
    page = opened(device)
    stage = compared(page)
    before, box = seen(stage), stage.bounding_box()
    y = box["y"] + box["height"] / 2

    def x(part: float) -> float:
        return box["x"] + part * box["width"]

    if device == "phone":
        touch = page.context.new_cdp_session(page)
        for kind, part in (("touchStart", 0.5), ("touchMove", 0.4), ("touchMove", 0.2), ("touchEnd", None)):
            points = [] if part is None else [{"x": x(part), "y": y}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    else:
        page.mouse.move(x(0.5), y)
        page.mouse.down()
        page.mouse.move(x(0.2), y, steps=4)
        page.mouse.up()
        page.mouse.move(x(0.9), y)  # it does not follow what is not held
    assert int(page.locator("#bar").input_value()) == pytest.approx(20, abs=1)
    low, high = changed(before, seen(stage))
    margin = HANDLE / box["width"]
    assert low == pytest.approx(0.2, abs=margin)
    assert high == pytest.approx(0.5, abs=margin)


def test_the_divider_goes_by_keys(opened: Open) -> None:
    page = opened()
    stage = compared(page)
    bar = page.locator("#bar")
    page.locator("#flip").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "bar"
    outline = bar.evaluate("bar => getComputedStyle(bar).outline")
    assert "solid" in outline
    assert "3px" in outline
    top = page.locator("#compare .stage").bounding_box()["y"]
    assert top >= 0, "who moves the divider sees the whole picture"
    middle = seen(stage)  # what has the focus is scrolled to
    for _ in range(30):
        page.keyboard.press("ArrowLeft")
    assert bar.input_value() == "20"
    assert "20 % " in bar.get_attribute("aria-valuetext")
    low, high = changed(middle, seen(stage))
    assert (low, high) == pytest.approx((0.2, 0.5), abs=HANDLE / middle.shape[1])
    page.keyboard.press("Home")
    right = seen(stage)
    page.keyboard.press("End")
    left = seen(stage)
    low, high = changed(left, right)
    assert low < 0.1
    assert high > 0.9
    page.keyboard.press("f")
    assert bar.input_value() == "0"
    page.locator("#flip").click()
    assert bar.input_value() == "100"
    assert (np.abs(seen(stage) - left) > 8).mean() < 0.01  # but for the edge


def test_any_picture_is_laid_on_either_side(opened: Open) -> None:
    page = opened()
    stage = compared(page)
    names = [page.locator(f"#{side} option").all_text_contents() for side in ("left", "right")]
    assert names[0] == names[1]
    assert len(names[0]) > 1
    before = seen(stage)
    page.get_by_label("on the right").select_option(label=names[0][-1])
    page.get_by_label("on the left").select_option(label=names[0][1])
    captions = page.locator(".stage figcaption").all_text_contents()
    assert captions == [names[0][1], names[0][-1]]
    compared(page)
    changed(before, seen(stage))
    photos = page.locator("#of option")
    assert page.locator("label:has(#of)").is_visible() == (photos.count() > 1)
    if photos.count() > 1:
        before = page.locator(".stage img").first.get_attribute("src")
        page.locator("#of").select_option(index=1)
        compared(page)
        assert page.locator(".stage img").first.get_attribute("src") != before
        box = stage.bounding_box()
        natural = page.evaluate(
            "(i => i.naturalWidth / i.naturalHeight)(document.querySelector('.stage img'))"
        )
        assert box["width"] / box["height"] == pytest.approx(natural, rel=0.02)
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["desk"][0]


@pytest.mark.parametrize("device", SIZES)
def test_a_picture_is_seen_large_by_keys(opened: Open, device: str) -> None:
    page = opened(device)
    pictures = page.locator(".zoom img")
    paths = pictures.evaluate_all("all => all.map(image => image.src)")
    page.locator(".zoom").first.focus()
    page.keyboard.press("Enter")
    shown = page.locator("dialog img")
    assert shown.get_attribute("src") == paths[0]
    assert shown.get_attribute("alt") == pictures.first.get_attribute("alt")
    page.wait_for_function("document.querySelector('dialog img').naturalWidth > 0")
    assert min(ratio for ratio, _ in page.evaluate(CONTRAST)) >= 4.5
    assert page.evaluate("""() => [...document.querySelectorAll("dialog *")].every(one => {
      const box = one.getBoundingClientRect();
      return box.right <= innerWidth + 1 && box.bottom <= innerHeight + 1;
    })""")
    page.keyboard.press("ArrowRight")
    assert shown.get_attribute("src") == paths[1 % len(paths)]
    page.keyboard.press("z")
    assert shown.evaluate("image => image.width === image.naturalWidth")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert shown.get_attribute("src") == paths[-1]
    page.keyboard.press("Escape")
    assert not shown.is_visible()
    page.wait_for_function("path => document.activeElement.querySelector('img')?.src === path", arg=paths[-1])


@pytest.mark.parametrize("device", SIZES)
def test_all_text_is_legible_in_both_looks(
    opened: Open, device: str, page_file: Path, tmp_path: Path
) -> None:
    kept = Path(os.environ.get("VIZSYNTH_SCREENSHOTS", tmp_path))
    kept.mkdir(parents=True, exist_ok=True)
    papers = set()
    for look in ("light", "dark"):
        page = opened(device, look)
        found = page.evaluate(CONTRAST)
        assert len(found) > 10
        assert [(ratio, text) for ratio, text in found if ratio < 4.5] == []
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        height = min(page.evaluate("document.documentElement.scrollHeight"), 16_000)  # Chromium draws no more
        page.set_viewport_size({"width": SIZES[device][0], "height": height})  # lazy pictures are loaded
        page.evaluate("Promise.all([...document.images].filter(i => i.y < innerHeight).map(i => i.decode()))")
        page.screenshot(path=kept / f"{page_file.parent.name}-{device}-{look}.png")
    assert len(papers) == 2


def test_the_look_is_chosen_and_kept(opened: Open) -> None:
    page = opened(look="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="dark or light").press("Enter")
    dark = page.evaluate(paper)
    assert dark != light
    assert min(ratio for ratio, _ in page.evaluate(CONTRAST)) >= 4.5
    page.reload()
    assert page.evaluate(paper) == dark
    page.get_by_role("button", name="dark or light").click()
    assert page.evaluate(paper) == light


def whole(page: Any) -> bool:
    """Tell whether both pictures of the comparison are seen, nothing cut off, neither over the other."""
    figures = page.locator("#compare .stage figure")
    left, right = (figure.bounding_box() for figure in figures.all())
    apart = left["x"] + left["width"] <= right["x"] or left["y"] + left["height"] <= right["y"]
    return apart and all(
        figure.evaluate("one => getComputedStyle(one).clipPath") == "none" and figure.is_visible()
        for figure in figures.all()
    )


def test_on_paper_both_pictures_stand_side_by_side(opened: Open) -> None:
    page = opened(look="dark")
    compared(page)
    assert not whole(page)
    page.emulate_media(media="print")
    assert whole(page)
    assert not page.locator("#bar").is_visible()
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(0, 0, 0)"
    assert min(ratio for ratio, _ in page.evaluate(CONTRAST)) >= 4.5


@pytest.mark.parametrize("device", SIZES)
def test_without_a_script_both_pictures_are_seen(opened: Open, device: str) -> None:
    page = opened(device, script=False)
    if page.locator("#compare").count() == 0:
        pytest.skip("nothing is compared on this page")
    assert whole(page)
    for needs_it in ("#bar", ".choose", ".help"):
        assert not page.locator(needs_it).is_visible()
    assert page.locator("#compare noscript img").count() >= 2
