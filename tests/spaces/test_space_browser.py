"""The Space, laid out as it is published, clicked through in a headless Chromium."""

import json
import re
import zipfile

import pytest

from tests.spaces.conftest import chrome

SWITCHES = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
DRAWN = "#four figure.card:not(.empty)"
PATIENCE = 60_000  # milliseconds: the first drawing of a pipeline loads it


@pytest.fixture(scope="module")
def browser(address):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed, so nothing was clicked")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chrome(), args=SWITCHES)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page(browser, address):
    """A page on which the tests of this file go on from one to the next, with all that it has asked of the network."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.asked, page.wrong = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#caption input, #caption textarea")
    return page


def _caption(page):
    return page.locator("#caption input, #caption textarea")


def _totals(page):
    return page.locator(f"{DRAWN} .total b").all_inner_texts()


def _fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def _message(page, text):
    page.locator("#message .message", has_text=text).wait_for()


def test_a_caption_and_enter_give_four_pictures_with_scores_and_the_plan(page):
    _caption(page).fill("a red circle left of a blue star on sand")
    _caption(page).press("Enter")
    page.wait_for_selector(DRAWN)
    cards = page.locator(DRAWN)
    assert cards.locator("strong").all_inner_texts() == ["Base", "SPRO-Prompt", "SPRO-Image", "SPRO-MM"]
    assert all(re.fullmatch(r"-?\d+\.\d\d", total) for total in _totals(page)) and len(_totals(page)) == 4
    assert cards.locator("dt").all_inner_texts() == ["aesthetic", "engagement", "pickscore"] * 4
    shown = page.evaluate(f"[...document.querySelectorAll('{DRAWN} img')].map(i => [i.naturalWidth, i.clientWidth])")
    assert all(natural == 32 and width > 150 for natural, width in shown) and len(shown) == 4
    assert page.locator("#plan li").count() >= 1
    assert "a red circle left of a blue star on sand" in page.locator("#plan blockquote").inner_text()
    assert page.locator("#message .message").count() == 0


def test_the_download_holds_what_is_shown(page, tmp_path):
    page.wait_for_selector("#history button img")
    with page.expect_download() as waiting:
        page.click("#download")
    waiting.value.save_as(tmp_path / "run.zip")
    archive = zipfile.ZipFile(tmp_path / "run.zip")
    told = json.loads(archive.read("run.json"))
    assert [f"{system['total']:.2f}" for system in told["systems"].values()] == _totals(page)
    assert (
        archive.read("SPRO-MM.png").startswith(b"\x89PNG")
        and waiting.value.suggested_filename == "spro-aesthetics-0.zip"
    )


def test_the_history_grows_and_shows_what_was_drawn_again(page):
    first = _totals(page)
    page.locator("#objective label", has_text="preference").click()
    page.click("#dice")
    page.wait_for_function("document.querySelector('#seed input').value != '0'")
    seed = page.locator("#seed input").input_value()
    _caption(page).fill("a red circle with a cat")
    page.click("#draw")
    _message(page, "does not know: cat")
    page.wait_for_function("document.querySelectorAll('#history button img').length == 2")
    assert _totals(page) != first and re.fullmatch(r"\d+", seed)
    older = page.locator("#history button", has=page.get_by_alt_text("a red circle left of a blue star on sand"))
    older.click()
    page.wait_for_function("document.querySelector('#seed input').value == '0'")
    assert _totals(page) == first and _caption(page).input_value() == "a red circle left of a blue star on sand"
    assert page.locator("#history button img").count() == 2


def test_wrong_input_is_told_and_leaves_the_pictures(page):
    before = _totals(page)
    _caption(page).fill("")
    _caption(page).press("Enter")
    _message(page, "Caption: it is empty")
    _caption(page).fill("x" * 301)
    page.click("#draw")
    _message(page, "it has 301 characters")
    _caption(page).fill("a red circle")
    page.locator("#seed input").fill("-1")
    page.click("#draw")
    _message(page, "Seed: give a whole number")
    page.get_by_text("Another pipeline of the Hub").click()
    for id, said in (("nonsense", "is no id of the Hub"), ("someone/something@v1", "no connection to")):
        page.locator("#pipeline-id input, #pipeline-id textarea").fill(id)
        page.click("#use-pipeline")
        page.locator("#pipeline-message .error", has_text=said).wait_for()
    page.get_by_text("Another pipeline of the Hub").click()
    assert _totals(page) == before and "Traceback" not in page.content()


def test_rollouts_seed_by_seed(page):
    page.get_by_role("tab", name="Rollouts").click()
    page.wait_for_selector("#page figure")
    assert page.inner_text("#place") == "1 of 32"
    assert page.locator("#page figure strong").all_inner_texts() == ["Base", "Best kept", "Worst kept"]
    best, worst = (float(page.inner_text(f"#page [data-mark={mark}] .total b")) for mark in ("best", "worst"))
    totals = page.locator("#page .candidates > li.kept p > b").all_inner_texts()
    assert sorted(map(float, totals)) == [worst, best] and page.locator("#page .candidates > li").count() == 8
    caption = page.inner_text("#page h3.caption")
    page.click("#next")
    page.locator("#place", has_text="2 of 32").wait_for()
    assert page.inner_text("#page h3.caption") != caption
    page.click("#previous")
    page.locator("#place", has_text="1 of 32").wait_for()
    assert page.inner_text("#page h3.caption") == caption


def test_rollouts_by_reason(page):
    page.locator("#why input").click()
    page.get_by_role("option", name=re.compile("similarity below")).click()
    page.locator("#place", has_text=re.compile(r"1 of (?!32)\d")).wait_for()
    marked = page.locator("#page .candidates > li.marked .why")
    assert marked.count() >= 1 and set(marked.all_inner_texts()) == {"similarity below 0.5"}
    page.locator("#rollouts input").click()
    page.get_by_role("option", name="engagement").click()
    page.locator("#place", has_text="1 of 32").wait_for()


def test_a_narrow_screen_has_nothing_to_scroll_sideways(page):
    assert _fits(page)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.locator("#page figure").first.is_visible() and _fits(page)
    page.get_by_role("tab", name="Draw").click()
    assert page.locator(DRAWN).count() == 4 and _fits(page)
    boxes = [page.locator(DRAWN).nth(i).bounding_box() for i in range(4)]
    assert boxes[0]["y"] == boxes[1]["y"] < boxes[2]["y"] and boxes[0]["x"] < boxes[1]["x"]  # two and two
    page.set_viewport_size({"width": 1280, "height": 900})


def test_every_picture_has_words_and_every_field_a_label(page):
    assert page.evaluate("[...document.querySelectorAll('img')].filter(i => !i.alt.trim()).length") == 0
    assert page.evaluate("document.querySelectorAll('main img, .gradio-container img').length") > 8
    bare = "[...document.querySelectorAll('input, textarea')].filter(i => !i.labels.length && !i.ariaLabel && i.type != 'file')"
    assert page.evaluate(f"{bare}.map(i => i.outerHTML)") == []


def test_nothing_was_asked_of_another_machine_and_no_script_failed(page, address):
    strangers = [url for url in page.asked if not url.startswith((address, "data:", "blob:"))]
    assert strangers == [] and page.wrong == [] and len(page.asked) > 20


def test_the_keyboard_alone_is_enough(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.wait_for_function("document.activeElement.closest('#caption')")  # where one begins
    page.keyboard.type("a pink heart on mint")
    stops = []
    while stops[-1:] != ["draw"] and len(stops) < 10:
        page.keyboard.press("Tab")
        stop = page.evaluate("document.activeElement.closest('[id]:not([id^=component])').id")
        stops += [stop] if stops[-1:] != [stop] else []  # each choice of the objective is a stop of its own
    assert stops == ["objective", "seed", "dice", "draw"]
    page.keyboard.press("Enter")
    page.wait_for_selector(DRAWN)
    assert "a pink heart on mint" in page.locator(f"{DRAWN} img").first.get_attribute("alt")
    background = page.evaluate("getComputedStyle(document.querySelector('#four figure')).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", background)[:3])) < 200  # dark
    page.close()
