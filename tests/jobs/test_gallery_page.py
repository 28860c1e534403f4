"""The gallery page in a real browser."""

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import Watched
from galleries import Row, captioned, failed, gallery, images, output, picture
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, Page, expect

from pipeline.results.review import read_review

pytestmark = pytest.mark.xdist_group("browser")

HOSTILE = "</script><img src=x onerror=alert(1)>&\u2028'\"#:~:text=a=HYPERLINK(1)\u202e"
LONG = "a dog with a very long name, " * 20 + "Donaudampfschifffahrtsgesellschaftskapitän" * 5
SCREENSHOTS = os.environ.get("SCREENSHOTS", "")
"""A folder that keeps the screenshots, to look at them."""


def opened(context: BrowserContext, out: Path, **options: Any) -> Page:
    """Opens the gallery of an output from the disk."""
    page = context.new_page()
    page.goto(gallery(out, **options).as_uri())
    return page


def tiles(page: Page) -> Locator:
    return page.locator("#tiles > li > a")


def viewer(page: Page) -> Locator:
    return page.get_by_role("dialog")


def enter(tile: Locator) -> None:
    """Opens the viewer on a tile; a key that is pressed before it is open is another command."""
    tile.click()
    expect(viewer(tile.page)).to_be_visible()


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def close(page: Page) -> None:
    """Closes the viewer by its key."""
    press(page, "Escape")
    expect(page).to_have_url(re.compile("^[^#]*$"))


def review(page: Page, folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """Downloads the review; returns its path and its decisions."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the review").click()
    path = str(folder / "review.json")
    download.value.save_as(path)
    return path, json.loads(Path(path).read_text(encoding="utf-8"))["decisions"]


def captions(path: str, rows: list[Row]) -> list[str | None]:
    """Returns the captions of rows by a review; None for those that are rejected."""
    decisions = read_review(path)
    found = [decision.apply(row) if (decision := decisions.of(row)) else row for row in rows]
    return [row and row["caption"] for row in found]


def assert_accessible(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def screenshot(page: Page, name: str) -> Image.Image:
    data = page.screenshot()
    if SCREENSHOTS:
        (Path(SCREENSHOTS) / f"{name}.png").write_bytes(data)
    return Image.open(io.BytesIO(data)).convert("RGB")


def colour_at(page: Page, shot: Image.Image, image: Locator) -> tuple[int, ...]:
    """Returns the colour of the screenshot in the middle of an element."""
    box = image.bounding_box()
    assert box
    return shot.getpixel((int(box["x"] + box["width"] / 2), int(box["y"] + box["height"] / 2)))  # type: ignore


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (768, "dark"), (1280, "light")])
def test_the_page_fits_and_is_accessible(watched: Watched, tmp_path: Path, width: int, scheme: str) -> None:
    (tmp_path / "wide.jpg").write_bytes(picture("red", (400, 200)))
    rows = [
        captioned("0-wide.jpg", tmp_path / "wide.jpg", confidence=0.81),
        *[row | {"confidence": 0.31} for row in images(tmp_path, 3)],
        captioned(LONG, tmp_path / "wide.jpg", caption=LONG, candidates=[{"caption": "x" * 300, "log_prob": -3.0}] * 2),
        failed("broken.jpg", tmp_path / "broken.jpg"),
    ]
    page = opened(watched.context(width, color_scheme=scheme), output(tmp_path, rows))
    first = page.locator("#tiles img").first
    expect(first).to_have_js_property("complete", True)
    shot = screenshot(page, f"tiles-{width}-{scheme}")
    red, *others = colour_at(page, shot, first)
    assert red > 200
    assert max(others) < 100
    states = {
        "tiles": lambda: None,
        "table": lambda: page.get_by_label("As").select_option("table"),
        "viewer": lambda: (enter(page.get_by_role("link", name="0-wide.jpg")), press(page, "k", "ArrowLeft")),
        "editor": lambda: press(page, "e"),
        "long": lambda: (press(page, "Escape"), page.goto(f"{page.url.split('#')[0]}#image={LONG}")),
    }
    for name, bring in states.items():
        bring()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.evaluate("document.querySelector('dialog').scrollWidth") <= width, name
        assert_accessible(page)
        screenshot(page, f"{name}-{width}-{scheme}")


def test_a_review_by_keyboard(watched: Watched, tmp_path: Path) -> None:
    rows = images(tmp_path, 4)
    page = opened(watched.context(), output(tmp_path, rows))
    press(page, "Tab", "Tab", "Tab", "Tab", "Tab", "Enter")  # search, three choices, the first image
    expect(viewer(page).get_by_role("heading", name="dog 0")).to_be_visible()
    press(page, "k", "r", "e")
    page.keyboard.type("a wolf")  # over the selected caption
    press(page, "Enter")
    close(page)
    expect(page.locator("#review-counts")).to_have_text("1 kept · 1 edited · 1 rejected · 1 to review")
    page.reload()  # from localStorage
    path, decisions = review(page, tmp_path)
    assert [each["decision"] for each in decisions] == ["keep", "reject", "keep"]
    assert captions(path, rows) == ["dog 0", None, "a wolf", "dog 3"]


def test_a_review_by_touch(watched: Watched, tmp_path: Path) -> None:
    context = watched.context(390, has_touch=True, is_mobile=True)
    page = opened(context, output(tmp_path, images(tmp_path, 3)))
    tiles(page).nth(1).tap()
    viewer(page).get_by_role("button", name="Edit").tap()
    page.get_by_label("Caption", exact=True).fill("a fox")
    page.get_by_role("button", name="Save").tap()
    viewer(page).get_by_role("button", name="Reject").tap()
    viewer(page).get_by_role("button", name="Undo").tap()
    viewer(page).get_by_role("button", name="Keep").tap()
    viewer(page).get_by_role("button", name="Close").tap()
    expect(page.locator("#review-counts")).to_have_text("1 kept · 1 edited · 0 rejected · 1 to review")
    expect(tiles(page).nth(1)).to_contain_text("a fox")


def test_an_edit_is_dropped_by_escape_and_kept_by_going_away(watched: Watched, tmp_path: Path) -> None:
    page = opened(watched.context(), output(tmp_path, images(tmp_path, 3)))
    enter(tiles(page).first)
    press(page, "e")
    page.keyboard.type("dropped")
    press(page, "Escape")
    expect(viewer(page).get_by_role("heading", name="dog 0")).to_be_visible()
    press(page, "e")
    page.keyboard.type("kept")
    page.go_back()
    expect(tiles(page).first).to_contain_text("kept")
    assert [each["caption"] for each in review(page, tmp_path)[1]] == ["kept"]


def test_an_edit_that_changes_nothing_is_none(watched: Watched, tmp_path: Path) -> None:
    rows = [captioned("a", "/a", caption="two\r\nlines ")]
    page = opened(watched.context(), output(tmp_path, rows))
    enter(tiles(page))
    press(page, "e", "Enter")
    close(page)
    assert "caption" not in review(page, tmp_path)[1][0]


def test_an_error_is_not_edited(watched: Watched, tmp_path: Path) -> None:
    rows = [failed("a.jpg", tmp_path / "a.jpg")]
    page = opened(watched.context(), output(tmp_path, rows))
    enter(tiles(page))
    expect(viewer(page).get_by_role("button", name="Edit")).to_be_disabled()
    press(page, "e", "r")
    close(page)
    path, _ = review(page, tmp_path)
    assert read_review(path).of({"caption": None} | rows[0]).decision == "reject"  # type: ignore[union-attr]


def test_a_decision_counts_for_the_caption_that_was_seen(watched: Watched, tmp_path: Path) -> None:
    rows, context = images(tmp_path, 2), watched.context()
    page = opened(context, output(tmp_path, rows))
    enter(tiles(page).first)
    press(page, "r", "r")
    again = opened(context, output(tmp_path, [rows[0] | {"caption": "a better caption"}, rows[1]]))
    expect(again.locator("#review-counts")).to_have_text("0 kept · 0 edited · 1 rejected · 1 to review")


def test_two_tabs_on_an_output_share_the_review(watched: Watched, tmp_path: Path) -> None:
    context, out = watched.context(), output(tmp_path, images(tmp_path, 2))
    pages = [opened(context, out) for _ in range(2)]
    for i, page in enumerate(pages):
        enter(tiles(page).nth(i))
        press(page, "r")
        close(page)
    for page in pages:
        expect(page.locator("#review-counts")).to_have_text("0 kept · 0 edited · 2 rejected · 0 to review")


def test_a_browser_that_keeps_nothing_says_so(watched: Watched, tmp_path: Path) -> None:
    context = watched.context()
    context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new DOMException() } })")
    page = opened(context, output(tmp_path, images(tmp_path, 1)))
    expect(page.get_by_text("This browser does not keep decisions")).to_be_visible()
    enter(tiles(page))
    press(page, "r")
    close(page)
    assert len(review(page, tmp_path)[1]) == 1


def test_a_link_leads_to_an_image_and_back(watched: Watched, tmp_path: Path) -> None:
    page = opened(watched.context(), output(tmp_path, images(tmp_path, 3)))
    start = page.url
    enter(tiles(page).first)
    press(page, "ArrowRight")
    expect(page).to_have_url(f"{start}#image=1.jpg")
    page.go_back()
    expect(viewer(page)).to_be_hidden()
    expect(tiles(page).nth(1)).to_be_focused()
    page.go_forward()
    expect(viewer(page).get_by_role("heading", name="dog 1")).to_be_visible()
    close(page)
    elsewhere = page.context.new_page()
    elsewhere.goto(f"{start}#image=2.jpg")
    expect(viewer(elsewhere).get_by_role("heading", name="dog 2")).to_be_visible()
    close(elsewhere)
    expect(elsewhere).to_have_url(start)


def test_images_of_one_name_have_links_of_their_own(watched: Watched, tmp_path: Path) -> None:
    rows = [captioned("a", "/t.parquet", i, caption=f"{shade} dog") for i, shade in enumerate(["red", "blue"])]
    page = opened(watched.context(), output(tmp_path, [*rows, captioned("a", "/u.parquet", caption="a cat")]))
    names = []
    for link in tiles(page).evaluate_all("links => links.map(each => each.href)"):
        page.goto(link)
        names.append(viewer(page).get_by_role("heading", level=2).inner_text())
        press(page, "r")
        close(page)
    assert sorted(names) == ["a cat", "blue dog", "red dog"]
    assert len(review(page, tmp_path)[1]) == 3


def test_a_link_to_an_image_that_is_not_there_says_so(watched: Watched, tmp_path: Path) -> None:
    page = opened(watched.context(), output(tmp_path, images(tmp_path, 1)))
    page.goto(f"{page.url}#image=gone.jpg")
    expect(page.get_by_text("gone.jpg is not on this page")).to_be_visible()


def test_a_caption_is_said_once(watched: Watched, tmp_path: Path) -> None:
    page = opened(watched.context(), output(tmp_path, images(tmp_path, 1)))
    assert page.locator("main").aria_snapshot().count("dog 0") == 1
    enter(tiles(page))
    assert viewer(page).locator(":scope > *").first.aria_snapshot() == ""
    assert viewer(page).aria_snapshot().count("dog 0") == 2  # the dialog's name, and its heading


def test_scores_are_words(watched: Watched, tmp_path: Path) -> None:
    rows = [captioned(str(i), f"/{i}", log_prob=-3.0 * i) for i in (1, 2, 3)]
    page = opened(watched.context(), output(tmp_path, rows))
    assert "−" not in page.locator("main").inner_text()
    enter(tiles(page).nth(1))
    expect(viewer(page).get_by_text("per word, higher than for 1 of the 2 other captions")).to_be_visible()
    expect(viewer(page).get_by_text("unsure")).to_have_count(0)


def cells(page: Page, column: str) -> list[str]:
    return page.locator(f"td.{column}").all_inner_texts()


def test_the_table_is_sorted_by_its_headings(watched: Watched, tmp_path: Path) -> None:
    rows: list[Row] = [
        captioned(name, f"/{name}", caption=caption, confidence=confidence)
        for name, caption, confidence in [("img10", "b", 0.9), ("img9", "c", None), ("img11", "a", 0.4)]
    ]
    page = opened(watched.context(), output(tmp_path, [*rows, failed("x", "/x")]))
    page.get_by_label("As").select_option("table")
    assert page.locator("th").all_inner_texts() == ["path", "caption", "confidence", "error"]
    assert cells(page, "path") == ["img9", "img10", "img11", "x"]
    assert cells(page, "confidence") == ["", "90%", "unsure, 40%", ""]
    page.get_by_role("button", name="caption").click()
    assert cells(page, "path") == ["img11", "img10", "img9", "x"]
    page.get_by_role("button", name="confidence").click()
    assert cells(page, "path") == ["img11", "img10", "img9", "x"]
    page.get_by_role("button", name="confidence").click()
    assert cells(page, "path") == ["img10", "img11", "img9", "x"]
    assert page.get_by_role("columnheader", name="confidence").get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="error").click()
    assert cells(page, "path")[0] == "x"
    expect(page.get_by_role("button", name="error")).to_be_focused()


def test_the_table_has_no_confidence_where_the_output_has_none(watched: Watched, tmp_path: Path) -> None:
    page = opened(watched.context(), output(tmp_path, images(tmp_path, 1)))
    page.get_by_label("As").select_option("table")
    assert page.locator("th").all_inner_texts() == ["path", "caption", "error"]


def test_rows_are_shown_by_their_decision(watched: Watched, tmp_path: Path) -> None:
    page = opened(watched.context(), output(tmp_path, [*images(tmp_path, 3), failed("x.jpg", "/x.jpg")]))
    enter(tiles(page).first)
    press(page, "k", "r")
    close(page)
    for shown, names in {
        "kept": ["0.jpg"],
        "rejected": ["1.jpg"],
        "to review": ["2.jpg", "x.jpg"],
        "errors": ["x.jpg"],
    }.items():
        page.get_by_label("Show").select_option(shown)
        assert page.locator("#tiles .id").all_inner_texts() == names


def test_hostile_text_stays_text(watched: Watched, tmp_path: Path) -> None:
    rows = [captioned(HOSTILE, f"/{HOSTILE}", caption=HOSTILE), failed("x", "/x", code=HOSTILE)]
    page = opened(watched.context(), output(tmp_path, rows))
    enter(tiles(page).first)
    expect(viewer(page).get_by_role("heading", level=2)).to_have_text(HOSTILE)
    press(page, "e")
    page.keyboard.insert_text(HOSTILE + "!")
    press(page, "Enter")
    close(page)
    page.reload()
    page.get_by_label("As").select_option("table")
    assert page.locator("script").count() == 6  # those of the page
    assert page.locator("img[src='x']").count() == 0
    path, _ = review(page, tmp_path)
    assert captions(path, rows[:1]) == [HOSTILE + "!"]


def test_of_many_images_only_those_in_sight_are_made(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture("red"))
    rows = [captioned(f"{i}.jpg", tmp_path / "a.jpg", i) for i in range(150)]
    missing = [captioned(f"{i}.jpg", "/none.jpg", i) for i in range(150, 10_000)]
    out, context = output(tmp_path, [*rows, *missing]), watched.context()
    requests: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    page = opened(context, out)
    expect(page.locator("#place")).to_have_text("1 of 167")
    assert tiles(page).count() == 60
    page.get_by_role("button", name="Next").click()
    assert page.locator("#tiles .id").first.inner_text() == "60.jpg"
    page.get_by_label("Search").fill("9999")
    assert page.locator("#tiles .id").all_inner_texts() == ["9999.jpg"]
    assert len([url for url in requests if "thumbnails" in url]) <= 120
